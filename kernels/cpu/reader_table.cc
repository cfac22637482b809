#include "kernels/cpu/reader_table.h"

#include "kernels/format/rotation.h"

namespace turbokv::cpu {

std::array<float, 16> ReaderTable(Codec codec) {
  std::array<float, 16> table{};
  const CodecTraits& traits = TraitsOf(codec);
  for (int i = 0; i < 16; ++i) {
    if (traits.scale_kind == ScaleKind::kGroupFp16) {
      table[i] = static_cast<float>(TurboCentroids(codec)[i % (1 << traits.code_bits)]);
    } else {
      table[i] = static_cast<float>(codec == Codec::kQ4_0 ? i - 8 : i);
    }
  }
  return table;
}

}  // namespace turbokv::cpu
