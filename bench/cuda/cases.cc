#include "bench/cuda/cases.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"

namespace turbokv::bench {
namespace {

constexpr int kKvHeads = 8;
constexpr int64_t kSweepBytes = int64_t{8} << 30;  // of the pages of one case

PageShape ShapeOf(Codec k, Codec v, int head_dim) {
  const bool k_mean = TraitsOf(k).scale_kind != ScaleKind::kNone;
  return {kKvHeads, head_dim, k, v, k_mean};
}

// Builds the list; smoke runs have the same names, but tiny sizes.
class CaseList {
 public:
  explicit CaseList(bool smoke) : smoke_(smoke) {}

  AttentionCase& Add(const std::string& name, Codec k, Codec v, int head_dim, int group_size,
                     int batch, int tokens) {
    const int pages = Pages(tokens);
    return AddLengths(name, k, v, head_dim, group_size,
                      std::vector<int>(smoke_ ? std::min(batch, 2) : batch, pages));
  }

  AttentionCase& AddLengths(const std::string& name, Codec k, Codec v, int head_dim, int group_size,
                            std::vector<int> sequence_pages) {
    return cases_.emplace_back(
        AttentionCase{name, ShapeOf(k, v, head_dim), group_size, std::move(sequence_pages)});
  }

  int Pages(int tokens) const {
    return smoke_ ? std::min(tokens / kPageTokens, 4) : tokens / kPageTokens;
  }

  std::vector<AttentionCase> Take() { return std::move(cases_); }

 private:
  const bool smoke_;
  std::vector<AttentionCase> cases_;
};

struct BatchShape {
  int batch;
  int tokens;
};
constexpr BatchShape kLarge = {8, 131072};

void AddShapes(CaseList& list) {
  for (const auto [batch, tokens] :
       {kLarge, BatchShape{16, 32768}, BatchShape{64, 8192}, BatchShape{32, 4096},
        BatchShape{1, 131072}, BatchShape{1, 32768}}) {
    list.Add(absl::StrCat("attention/turbo3/", batch, "x", kKvHeads, "x", tokens), Codec::kTurbo3,
             Codec::kTurbo3, 128, 8, batch, tokens);
  }
}

void AddCodecs(CaseList& list) {
  const std::string large = absl::StrCat(kLarge.batch, "x", kKvHeads, "x", kLarge.tokens);
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo4, Codec::kInt4, Codec::kInt5, Codec::kInt6}) {
    list.Add(absl::StrCat("attention/", CodecName(codec), "/", large), codec, codec, 128, 8,
             kLarge.batch, kLarge.tokens);
  }
  list.Add(absl::StrCat("attention/q8_0+turbo3/", large), Codec::kQ8_0, Codec::kTurbo3, 128, 8,
           kLarge.batch, kLarge.tokens);
  for (int head_dim : {64, 256}) {
    for (Codec codec : {Codec::kTurbo3, Codec::kInt5}) {
      list.Add(absl::StrCat("attention/", CodecName(codec), "/", large, "/d", head_dim, "/g4"),
               codec, codec, head_dim, 4, kLarge.batch, kLarge.tokens);
    }
  }
}

void AddVariants(CaseList& list) {
  list.Add("attention/turbo3/32x8x4096/tail200", Codec::kTurbo3, Codec::kTurbo3, 128, 8, 32, 4096)
      .tail_tokens = 200;
  list.Add("attention/turbo3/32x8x4096/queries4", Codec::kTurbo3, Codec::kTurbo3, 128, 8, 32, 4096)
      .queries = 4;
  list.Add("attention/turbo3/8x8x131072/queries4", Codec::kTurbo3, Codec::kTurbo3, 128, 8,
           kLarge.batch, kLarge.tokens)
      .queries = 4;
}

// One long sequence among 63 short ones, and the same number of pages in 64 equal ones.
void AddUnequalLengths(CaseList& list) {
  constexpr int kSequences = 64;
  std::vector<int> unequal(kSequences, list.Pages(2048));
  unequal[0] = 8 * list.Pages(65536);
  const int total = std::accumulate(unequal.begin(), unequal.end(), 0);
  std::vector<int> equal(kSequences, total / kSequences);
  for (int i = 0; i < total % kSequences; ++i) ++equal[i];
  list.AddLengths("unequal/turbo3/1x524288+63x2048", Codec::kTurbo3, Codec::kTurbo3, 128, 8,
                  unequal);
  list.AddLengths("unequal/turbo3/64_equal", Codec::kTurbo3, Codec::kTurbo3, 128, 8, equal);
}

// Contexts for the plot. The batch shrinks where the pages would take too much memory.
void AddSweep(CaseList& list) {
  for (Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4, Codec::kInt4, Codec::kInt5,
                      Codec::kInt6, Codec::kFp8E4m3, Codec::kBf16}) {
    const auto layout = PageLayout::For(ShapeOf(codec, codec, 128));
    for (int tokens = 1024; tokens <= 1 << 20; tokens *= 2) {
      const int64_t sequence_bytes = int64_t{tokens / kPageTokens} * layout->page_bytes;
      const int batch = static_cast<int>(std::clamp<int64_t>(kSweepBytes / sequence_bytes, 1, 8));
      list.Add(absl::StrCat("sweep/", CodecName(codec), "/", tokens), codec, codec, 128, 8, batch,
               tokens);
    }
  }
}

}  // namespace

int AttentionCase::total_pages() const {
  return std::accumulate(sequence_pages.begin(), sequence_pages.end(), 0);
}

int AttentionCase::max_pages() const {
  return *std::max_element(sequence_pages.begin(), sequence_pages.end());
}

std::string AttentionCase::ShapeKey() const {
  const bool equal = std::all_of(sequence_pages.begin(), sequence_pages.end(),
                                 [&](int pages) { return pages == sequence_pages[0]; });
  if (!equal || tail_tokens > 0 || queries > 1) return "";
  return absl::StrCat(batch(), "x", page.kv_heads, "x", sequence_pages[0] * kPageTokens, "/d",
                      page.head_dim, "/g", group_size);
}

std::vector<AttentionCase> AttentionCases(bool smoke) {
  CaseList list(smoke);
  AddShapes(list);
  AddCodecs(list);
  AddVariants(list);
  AddUnequalLengths(list);
  AddSweep(list);
  return list.Take();
}

std::vector<TranscodeCase> TranscodeCases(bool smoke) {
  std::vector<TranscodeCase> cases;
  for (Direction direction : {Direction::kEncode, Direction::kDequantize}) {
    for (Codec codec : {Codec::kTurbo3, Codec::kTurbo4, Codec::kInt5}) {
      const char* name = direction == Direction::kEncode ? "encode/" : "dequantize/";
      cases.push_back({absl::StrCat(name, CodecName(codec)), direction, ShapeOf(codec, codec, 128),
                       smoke ? 16 : 4096});
    }
  }
  return cases;
}

}  // namespace turbokv::bench
