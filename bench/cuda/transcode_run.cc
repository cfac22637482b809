#include "bench/cuda/transcode_run.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "bench/cuda/streaming.h"
#include "kernels/cpu/codec.h"
#include "kernels/cuda/dequantize/dequantize.h"
#include "kernels/cuda/encode/encode.h"
#include "kernels/format/small_floats.h"

namespace turbokv::bench {
namespace {

constexpr int kCheckedPages = 3;

int64_t TokenValues(const PageShape& shape) { return int64_t{shape.kv_heads} * shape.head_dim; }
size_t PageValueBytes(const PageShape& shape) {
  return sizeof(uint16_t) * kPageTokens * TokenValues(shape);
}

// bf16 K and V in device memory, NHD.
struct Values {
  DeviceMemory k, v;

  static absl::StatusOr<Values> Allocate(const TranscodeCase& test) {
    Values values;
    TURBOKV_ASSIGN_OR_RETURN(values.k,
                             DeviceMemory::Allocate(test.pages * PageValueBytes(test.page)));
    TURBOKV_ASSIGN_OR_RETURN(values.v,
                             DeviceMemory::Allocate(test.pages * PageValueBytes(test.page)));
    return values;
  }

  // Token ranges of one page after the other, as PageSupply encodes them.
  absl::Status Fill(const TranscodeCase& test, const PageSupply& supply) {
    const size_t page_bytes = PageValueBytes(test.page);
    const int pages = std::min(test.pages, PageSupply::kDistinctPages);
    std::vector<uint8_t> k_bytes(pages * page_bytes);
    std::vector<uint8_t> v_bytes(pages * page_bytes);
    for (int i = 0; i < pages; ++i) {
      const KvView source = supply.Source(test.page, i);
      std::memcpy(&k_bytes[i * page_bytes], source.k, page_bytes);
      std::memcpy(&v_bytes[i * page_bytes], source.v, page_bytes);
    }
    TURBOKV_RETURN_IF_ERROR(k.Fill(k_bytes));
    return v.Fill(v_bytes);
  }
};

struct Times {
  Timing launches;
  Timing graph;
};

absl::StatusOr<Times> Time(Stopwatch& stopwatch, const Work& work) {
  Times times;
  TURBOKV_ASSIGN_OR_RETURN(times.launches, stopwatch.TimeLaunches(work));
  TURBOKV_ASSIGN_OR_RETURN(times.graph, stopwatch.TimeGraph(work));
  return times;
}

// Empty, or the first page that is not what the CPU makes of the same values.
absl::StatusOr<std::string> CompareEncoded(const FilledPool& pool, PageSupply& supply) {
  const size_t page_bytes = pool.layout.page_bytes;
  TURBOKV_ASSIGN_OR_RETURN(const auto expected, supply.Encoded(pool.layout, kCheckedPages));
  std::vector<uint8_t> actual(page_bytes);
  for (int i = 0; i < kCheckedPages; ++i) {
    TURBOKV_RETURN_IF_ERROR(
        pool.memory.Read(pool.host_ids[i] * page_bytes, actual.data(), page_bytes));
    // The position in the header, and with it the checksum, is the call's.
    const auto [left, right] = std::mismatch(actual.begin() + kPageHeaderBytes, actual.end(),
                                             expected.begin() + i * page_bytes + kPageHeaderBytes);
    if (left != actual.end()) {
      return absl::StrFormat("byte %d of page %d differs from the CPU's", left - actual.begin(), i);
    }
  }
  return "";
}

absl::StatusOr<std::string> CompareDecoded(const TranscodeCase& test, const FilledPool& pool,
                                           const Values& values) {
  const size_t page_bytes = pool.layout.page_bytes;
  const size_t count = kPageTokens * TokenValues(test.page);
  std::vector<uint8_t> page(page_bytes);
  std::vector<float> expected[2] = {std::vector<float>(count), std::vector<float>(count)};
  std::vector<uint16_t> actual(count);
  for (int i = 0; i < kCheckedPages; ++i) {
    TURBOKV_RETURN_IF_ERROR(
        pool.memory.Read(pool.host_ids[i] * page_bytes, page.data(), page_bytes));
    TURBOKV_ASSIGN_OR_RETURN(const PageView view, ParsePage(page));
    cpu::DecodePage(
        view, {expected[0].data(), expected[1].data(), TokenValues(test.page), test.page.head_dim});
    for (bool is_v : {false, true}) {
      const DeviceMemory& memory = is_v ? values.v : values.k;
      TURBOKV_RETURN_IF_ERROR(
          memory.Read(i * PageValueBytes(test.page), actual.data(), PageValueBytes(test.page)));
      for (size_t j = 0; j < count; ++j) {
        const float want = expected[is_v][j];
        const float got = Bf16ToFloat(actual[j]);
        if (!(std::abs(got - want) <= std::ldexp(std::abs(want), -7) + 1e-5f)) {
          return absl::StrFormat("%c value %d of page %d is %g, on the CPU %g", is_v ? 'V' : 'K', j,
                                 i, got, want);
        }
      }
    }
  }
  return "";
}

absl::Status MeasureEncode(const TranscodeCase& test, PageSupply& supply, Stopwatch& stopwatch,
                           Measurement& measurement) {
  TURBOKV_ASSIGN_OR_RETURN(const FilledPool pool, supply.Fill(test.page, test.pages));
  TURBOKV_ASSIGN_OR_RETURN(Values values, Values::Allocate(test));
  TURBOKV_RETURN_IF_ERROR(values.Fill(test, supply));
  TURBOKV_ASSIGN_OR_RETURN(const DeviceMemory workspace,
                           DeviceMemory::Allocate(std::max<size_t>(
                               16, cuda::EncodeWorkspaceBytes(test.pages, test.page))));
  // What the pool was filled with must not pass for what is encoded.
  TURBOKV_RETURN_IF_ERROR(FillWithNoise(pool.memory, stopwatch.stream()));
  cuda::EncodeArguments arguments;
  arguments.pool = pool.pool;
  arguments.source = {ValueType::kBf16, values.k.As<void>(), values.v.As<void>(),
                      TokenValues(test.page), test.page.head_dim};
  arguments.pages = test.pages;
  arguments.page_ids = pool.ids.As<int32_t>();
  arguments.workspace = workspace.As<void>();
  TURBOKV_ASSIGN_OR_RETURN(const Times times, Time(stopwatch, [&](cudaStream_t stream) {
                             return cuda::EncodePages(arguments, stream);
                           }));
  measurement.launches = times.launches;
  measurement.graph = times.graph;
  TURBOKV_ASSIGN_OR_RETURN(measurement.wrong, CompareEncoded(pool, supply));
  return absl::OkStatus();
}

absl::Status MeasureDequantize(const TranscodeCase& test, PageSupply& supply, Stopwatch& stopwatch,
                               Measurement& measurement) {
  TURBOKV_ASSIGN_OR_RETURN(const FilledPool pool, supply.Fill(test.page, test.pages));
  TURBOKV_ASSIGN_OR_RETURN(const Values values, Values::Allocate(test));
  cuda::DequantizeArguments arguments;
  arguments.pool = pool.pool;
  arguments.page_ids = pool.ids.As<int32_t>();
  arguments.pages = test.pages;
  arguments.sink = {ValueType::kBf16, values.k.As<void>(), values.v.As<void>(),
                    TokenValues(test.page), test.page.head_dim};
  TURBOKV_ASSIGN_OR_RETURN(const Times times, Time(stopwatch, [&](cudaStream_t stream) {
                             return cuda::DequantizePages(arguments, stream);
                           }));
  measurement.launches = times.launches;
  measurement.graph = times.graph;
  TURBOKV_ASSIGN_OR_RETURN(measurement.wrong, CompareDecoded(test, pool, values));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Measurement> MeasureTranscode(const TranscodeCase& test, PageSupply& supply,
                                             Stopwatch& stopwatch) {
  TURBOKV_ASSIGN_OR_RETURN(const PageLayout layout, PageLayout::For(test.page));
  Measurement measurement;
  measurement.name = test.name;
  measurement.limit = Limit::kCopy;
  measurement.bytes = 1.0 * test.pages * (layout.page_bytes + 2 * PageValueBytes(test.page));
  measurement.facts = {{"kind", test.direction == Direction::kEncode ? "encode" : "dequantize"},
                       {"codec", std::string(CodecName(test.page.k_codec))},
                       {"pages", test.pages},
                       {"kv_heads", test.page.kv_heads},
                       {"head_dim", test.page.head_dim}};
  TURBOKV_RETURN_IF_ERROR(test.direction == Direction::kEncode
                              ? MeasureEncode(test, supply, stopwatch, measurement)
                              : MeasureDequantize(test, supply, stopwatch, measurement));
  return measurement;
}

}  // namespace turbokv::bench
