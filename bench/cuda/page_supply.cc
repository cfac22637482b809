#include "bench/cuda/page_supply.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <thread>

#include "base/status_macros.h"
#include "kernels/cpu/codec.h"
#include "kernels/format/small_floats.h"

namespace turbokv::bench {
namespace {

constexpr size_t kValues = 1 << 22;

}  // namespace

std::vector<uint16_t> GaussianBf16(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = FloatToBf16(normal(rng));
  return values;
}

PageSupply::PageSupply()
    : values_(GaussianBf16(kValues, 1)),
      threads_(static_cast<int>(std::max(1u, std::thread::hardware_concurrency()) - 1)) {}

KvView PageSupply::Source(const PageShape& shape, int index) const {
  const size_t count = size_t{kPageTokens} * shape.kv_heads * shape.head_dim;
  // Odd strides: pages overlap in the values that they are made of, but no two hold the same.
  const size_t span = kValues - count;
  const size_t k = static_cast<size_t>(index) * 30011 % span;
  const size_t v = (kValues / 2 + static_cast<size_t>(index) * 20011) % span;
  return NhdView(ValueType::kBf16, &values_[k], &values_[v], kPageTokens, shape.kv_heads,
                 shape.head_dim);
}

absl::StatusOr<absl::Span<const uint8_t>> PageSupply::Encoded(const PageLayout& layout, int pages) {
  const size_t bytes = pages * layout.page_bytes;
  if (layout.shape == shape_ && encoded_.size() >= bytes) {
    return absl::MakeConstSpan(encoded_).first(bytes);
  }
  shape_ = layout.shape;
  encoded_.resize(bytes);
  std::vector<absl::Status> statuses(pages);
  threads_.ParallelFor(pages, [&](size_t i) {
    const auto page = absl::MakeSpan(encoded_).subspan(i * layout.page_bytes, layout.page_bytes);
    statuses[i] = cpu::EncodePage(layout, {}, Source(layout.shape, static_cast<int>(i)), page);
  });
  for (const absl::Status& status : statuses) TURBOKV_RETURN_IF_ERROR(status);
  return absl::MakeConstSpan(encoded_);
}

absl::StatusOr<FilledPool> PageSupply::Fill(const PageShape& shape, int pages) {
  FilledPool filled;
  TURBOKV_ASSIGN_OR_RETURN(filled.layout, PageLayout::For(shape));
  TURBOKV_ASSIGN_OR_RETURN(filled.memory, DeviceMemory::Allocate(pages * filled.layout.page_bytes));
  TURBOKV_ASSIGN_OR_RETURN(const absl::Span<const uint8_t> encoded,
                           Encoded(filled.layout, std::min(pages, kDistinctPages)));
  TURBOKV_RETURN_IF_ERROR(filled.memory.Fill(encoded));
  filled.host_ids.resize(pages);
  std::iota(filled.host_ids.begin(), filled.host_ids.end(), 0);
  std::shuffle(filled.host_ids.begin(), filled.host_ids.end(), std::mt19937(pages));
  TURBOKV_ASSIGN_OR_RETURN(filled.ids, DeviceMemory::Of(absl::MakeConstSpan(filled.host_ids)));
  filled.pool = {shape, filled.memory.As<uint8_t>(), static_cast<int64_t>(filled.layout.page_bytes),
                 pages};
  return filled;
}

}  // namespace turbokv::bench
