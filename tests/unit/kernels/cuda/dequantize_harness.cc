#include "tests/unit/kernels/cuda/dequantize_harness.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>

#include "gtest/gtest.h"
#include "kernels/format/small_floats.h"

namespace turbokv::cuda::testing {
namespace {

constexpr int64_t kPageGapBytes = 384;  // between pages
constexpr uint8_t kPoison = 0xff;       // of fresh DeviceBuffers

template <class T>
std::vector<T> ShuffledNumbers(size_t count, uint32_t seed) {
  std::vector<T> numbers(count);
  std::iota(numbers.begin(), numbers.end(), T{0});
  std::shuffle(numbers.begin(), numbers.end(), std::mt19937(seed));
  return numbers;
}

int64_t Stride(const PageLayout& layout) {
  return static_cast<int64_t>(layout.page_bytes) + kPageGapBytes;
}

float ReadValue(const uint8_t* bytes, ValueType type) {
  if (type == ValueType::kFp32) {
    float value;
    std::memcpy(&value, bytes, sizeof(value));
    return value;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  return type == ValueType::kBf16 ? Bf16ToFloat(bits) : Fp16ToFloat(bits);
}

int64_t SinkValues(const SinkLayout& sink, const PageShape& shape, int64_t tokens) {
  int64_t end = 0;
  for (int64_t token = 0; token < tokens; ++token) {
    for (int head = 0; head < shape.kv_heads; ++head) {
      end = std::max(end, sink.Index(token, head) + shape.head_dim);
    }
  }
  constexpr int64_t kGuardValues = 256;
  return end + kGuardValues;
}

// Expects the pages' values, and turns them back into poison; then all must be poison.
void CheckTensor(const PagesOnDevice& pages, const SinkLayout& sink, bool is_v,
                 std::vector<uint8_t> bytes) {
  const PageShape& shape = pages.pool().shape;
  const size_t value_bytes = ValueBytes(sink.type);
  for (size_t page = 0; page < pages.pages().size(); ++page) {
    const DecodedTensor expected(pages.pages()[page], is_v);
    for (int token = 0; token < expected.tokens(); ++token) {
      for (int head = 0; head < shape.kv_heads; ++head) {
        const int64_t index = sink.Index(int64_t{kPageTokens} * page + token, head);
        if (index < 0) continue;
        uint8_t* row = bytes.data() + index * value_bytes;
        for (int c = 0; c < shape.head_dim; ++c) {
          const float value = ReadValue(row + c * value_bytes, sink.type);
          const std::string complaint = expected.Complaint(sink.type, token, head, c, value);
          ASSERT_TRUE(complaint.empty())
              << (is_v ? "V" : "K") << " of page " << page << ": " << complaint;
        }
        std::fill_n(row, shape.head_dim * value_bytes, kPoison);
      }
    }
  }
  for (size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(bytes[i], kPoison) << (is_v ? "V" : "K") << " was written at byte " << i;
  }
}

}  // namespace

PagesOnDevice::PagesOnDevice(const PageLayout& layout, std::vector<std::vector<uint8_t>> pages)
    : pages_(std::move(pages)),
      page_ids_(ShuffledNumbers<int32_t>(2 * pages_.size(), 5)),
      memory_(2 * pages_.size() * Stride(layout)),
      device_page_ids_(absl::MakeSpan(page_ids_).first(pages_.size())) {
  pool_ = {layout.shape, memory_.data(), Stride(layout), static_cast<int64_t>(page_ids_.size())};
  for (size_t i = 0; i < pages_.size(); ++i) {
    EXPECT_EQ(cudaMemcpy(memory_.data() + page_ids_[i] * pool_.stride_bytes, pages_[i].data(),
                         pages_[i].size(), cudaMemcpyHostToDevice),
              cudaSuccess);
  }
}

int64_t SinkLayout::Index(int64_t token, int head) const {
  if (slots.empty()) return token * token_stride + head * head_stride;
  const int64_t slot = slots[token];
  if (slot < 0) return -1;
  return slot / block_tokens * block_stride + slot % block_tokens * token_stride +
         head * head_stride;
}

SinkLayout MakeSink(SinkKind kind, ValueType type, const PageShape& shape, int pages) {
  const int64_t heads = shape.kv_heads;
  const int64_t dim = shape.head_dim;
  const int64_t tokens = int64_t{kPageTokens} * pages;
  SinkLayout sink;
  sink.type = type;
  const bool is_nhd = kind == SinkKind::kNhd || kind == SinkKind::kPagedNhd;
  const bool is_paged = kind == SinkKind::kPagedNhd || kind == SinkKind::kPagedHnd;
  if (is_paged) sink.block_tokens = is_nhd ? 16 : 48;
  sink.token_stride = is_nhd ? heads * dim + 16 : dim;
  sink.head_stride = is_nhd ? dim : dim * (is_paged ? sink.block_tokens : tokens);
  if (!is_paged) return sink;
  sink.block_stride =
      (is_nhd ? sink.token_stride * sink.block_tokens : sink.head_stride * heads) + 64;
  sink.slots = ShuffledNumbers<int64_t>(2 * tokens, 7);
  sink.slots.resize(tokens);
  for (int64_t i = 3; i < tokens; i += 7) sink.slots[i] = -1;
  return sink;
}

void ExpectDequantized(const PagesOnDevice& pages, const SinkLayout& sink, bool want_k,
                       bool want_v) {
  const PageShape& shape = pages.pool().shape;
  const int count = static_cast<int>(pages.pages().size());
  const int64_t values = SinkValues(sink, shape, int64_t{kPageTokens} * count);
  DeviceBuffer<uint8_t> k(values * ValueBytes(sink.type));
  DeviceBuffer<uint8_t> v(values * ValueBytes(sink.type));
  const DeviceBuffer<int64_t> slots(sink.slots);
  DequantizeArguments arguments;
  arguments.pool = pages.pool();
  arguments.page_ids = pages.page_ids();
  arguments.pages = count;
  arguments.sink.type = sink.type;
  arguments.sink.k = want_k ? k.data() : nullptr;
  arguments.sink.v = want_v ? v.data() : nullptr;
  arguments.sink.token_stride = sink.token_stride;
  arguments.sink.head_stride = sink.head_stride;
  arguments.sink.slot_mapping = sink.slots.empty() ? nullptr : slots.data();
  arguments.sink.block_stride = sink.block_stride;
  arguments.sink.block_tokens = sink.block_tokens;
  const absl::Status status = DequantizePages(arguments, nullptr);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  if (want_k) CheckTensor(pages, sink, /*is_v=*/false, k.Download());
  if (want_v) CheckTensor(pages, sink, /*is_v=*/true, v.Download());
}

}  // namespace turbokv::cuda::testing
