#include "tests/unit/kernels/cuda/encode_harness.h"

#include <algorithm>
#include <numeric>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/reference/codec.h"

namespace turbokv::cuda::testing {
namespace {

constexpr uint8_t kPoison = 0xff;

absl::Span<const uint8_t> BytesOf(const void* data, size_t values, ValueType type) {
  return {static_cast<const uint8_t*>(data), values * ValueBytes(type)};
}

}  // namespace

std::string DescribeOffset(const PageLayout& layout, size_t offset) {
  if (offset < kPageHeaderBytes) return absl::StrCat("header byte ", offset);
  const size_t head = (offset - kPageHeaderBytes) / layout.slice_bytes;
  const size_t in_slice = (offset - kPageHeaderBytes) % layout.slice_bytes;
  for (const auto& [name, section] :
       {std::pair{"K codes", layout.k_codes}, std::pair{"V codes", layout.v_codes},
        std::pair{"K scales", layout.k_scales}, std::pair{"V scales", layout.v_scales},
        std::pair{"K mean", layout.k_mean}}) {
    if (in_slice < section.offset_bytes) continue;
    if (in_slice >= section.offset_bytes + section.size_bytes) continue;
    return absl::StrCat("head ", head, " ", name, " byte ", in_slice - section.offset_bytes);
  }
  return absl::StrCat("head ", head, " padding at slice byte ", in_slice);
}

std::vector<uint8_t> ReferencePage(const PageLayout& layout, const KvView& kv, int page) {
  KvView view = kv;
  const ptrdiff_t offset_bytes =
      kPageTokens * page * kv.token_stride * static_cast<ptrdiff_t>(ValueBytes(kv.type));
  view.k = static_cast<const char*>(kv.k) + offset_bytes;
  view.v = static_cast<const char*>(kv.v) + offset_bytes;
  view.tokens = kPageTokens;
  PageIdentity identity = kEncodeIdentity;
  identity.first_token += uint64_t{kPageTokens} * page;
  std::vector<uint8_t> bytes(layout.page_bytes);
  EXPECT_TRUE(reference::EncodePage(layout, identity, view, absl::MakeSpan(bytes)).ok());
  return bytes;
}

std::string Difference(const PageLayout& layout, absl::Span<const uint8_t> actual,
                       absl::Span<const uint8_t> expected) {
  const auto pair = std::mismatch(actual.begin(), actual.end(), expected.begin());
  if (pair.first == actual.end()) return "";
  // The checksum differs whenever anything does.
  const auto checksum_end = actual.begin() + 16;
  auto place = pair;
  if (pair.first < checksum_end) {
    const auto later = std::mismatch(checksum_end, actual.end(), expected.begin() + 16);
    if (later.first != actual.end()) place = later;
  }
  size_t count = 0;
  for (size_t i = 0; i < actual.size(); ++i) count += actual[i] != expected[i];
  const auto offset = static_cast<size_t>(place.first - actual.begin());
  return absl::StrCat(DescribeOffset(layout, offset), ": ", int{*place.first}, " instead of ",
                      int{*place.second}, "; ", count, " bytes differ");
}

EncodeRun::EncodeRun(const PageLayout& layout, int pages)
    : layout_(layout),
      pages_(pages),
      stride_bytes_(static_cast<int64_t>(layout.page_bytes) + 128),
      page_ids_(2 * pages),
      pool_(static_cast<size_t>(2 * pages * stride_bytes_)),
      device_page_ids_(static_cast<size_t>(pages)),
      non_finite_(std::vector<uint32_t>{0}),
      workspace_(EncodeWorkspaceBytes(pages, layout.shape)) {
  std::iota(page_ids_.begin(), page_ids_.end(), 0);
  std::shuffle(page_ids_.begin(), page_ids_.end(), std::mt19937(7));
  page_ids_.resize(static_cast<size_t>(pages));
  device_page_ids_.Upload(page_ids_);
}

EncodeArguments EncodeRun::Arguments() {
  EncodeArguments arguments;
  arguments.pool = {layout_.shape, pool_.data(), stride_bytes_, 2 * pages_};
  arguments.pages = pages_;
  arguments.page_ids = device_page_ids_.data();
  arguments.layer = kEncodeIdentity.layer;
  arguments.generation = kEncodeIdentity.generation;
  arguments.spec_id = kEncodeIdentity.spec_id;
  arguments.first_token = kEncodeIdentity.first_token;
  arguments.non_finite_page = non_finite_.data();
  arguments.workspace = workspace_.data();
  return arguments;
}

std::vector<uint8_t> EncodeRun::Page(int i) const {
  std::vector<uint8_t> page(layout_.page_bytes);
  EXPECT_EQ(cudaMemcpy(page.data(), pool_.data() + page_ids_[i] * stride_bytes_, page.size(),
                       cudaMemcpyDeviceToHost),
            cudaSuccess);
  return page;
}

std::string EncodeRun::WrittenOutside() const {
  std::vector<uint8_t> pool = pool_.Download();
  for (int32_t id : page_ids_) {
    const auto begin = pool.begin() + id * stride_bytes_;
    std::fill(begin, begin + static_cast<int64_t>(layout_.page_bytes), kPoison);
  }
  const auto written =
      std::find_if(pool.begin(), pool.end(), [](uint8_t b) { return b != kPoison; });
  if (written == pool.end()) return "";
  return absl::StrCat("byte ", written - pool.begin(), " of the pool");
}

DeviceKv::DeviceKv(const KvView& kv, int kv_heads, int head_dim)
    : k_(BytesOf(kv.k, size_t(kv.tokens) * kv_heads * head_dim, kv.type)),
      v_(BytesOf(kv.v, size_t(kv.tokens) * kv_heads * head_dim, kv.type)) {
  source_.type = kv.type;
  source_.k = k_.data();
  source_.v = v_.data();
  source_.token_stride = kv.token_stride;
  source_.head_stride = kv.head_stride;
}

void ExpectReferencePages(const PageLayout& layout, const KvView& kv) {
  const DeviceKv device(kv, layout.shape.kv_heads, layout.shape.head_dim);
  ExpectReferencePages(layout, kv, device.source());
}

void ExpectReferencePages(const PageLayout& layout, const KvView& kv,
                          const DeviceKvSource& source) {
  const int pages = kv.tokens / kPageTokens;
  EncodeRun run(layout, pages);
  EncodeArguments arguments = run.Arguments();
  arguments.source = source;
  const absl::Status status = EncodePages(arguments, nullptr);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_EQ(run.NonFinitePage(), 0u);
  EXPECT_EQ(run.WrittenOutside(), "");
  for (int page = 0; page < pages; ++page) {
    EXPECT_EQ(Difference(layout, run.Page(page), ReferencePage(layout, kv, page)), "")
        << CodecName(layout.shape.k_codec) << "/" << CodecName(layout.shape.v_codec) << " head_dim "
        << layout.shape.head_dim << " kv_heads " << layout.shape.kv_heads << " k_mean "
        << layout.shape.k_mean << " type " << static_cast<int>(kv.type) << " page " << page;
  }
}

}  // namespace turbokv::cuda::testing
