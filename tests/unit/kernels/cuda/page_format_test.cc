// The page format of kernels is that of kernels/format.
#include "kernels/cuda/primitives/page_format.cuh"

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/format/page_header.h"
#include "kernels/format/page_layout.h"
#include "kernels/format/rotation.h"

namespace turbokv::cuda {
namespace {

constexpr int kGpuHeadDims[] = {64, 128, 256};

std::vector<Codec> ImplementedCodecs() {
  std::vector<Codec> codecs;
  for (const CodecTraits& traits : AllCodecs()) {
    if (traits.implemented) codecs.push_back(traits.codec);
  }
  return codecs;
}

size_t Bytes(int bytes) { return static_cast<size_t>(bytes); }

void ExpectSameLayout(const PageLayout& layout) {
  const auto& [kv_heads, head_dim, k, v, k_mean] = layout.shape;
  const size_t k_bytes = Bytes(HalfBytes(k, head_dim, k_mean));
  EXPECT_EQ(layout.k_codes.offset_bytes, 0u);
  EXPECT_EQ(layout.k_codes.size_bytes, Bytes(cuda::CodeSectionBytes(k, head_dim)));
  EXPECT_EQ(layout.k_scales.size_bytes, Bytes(cuda::ScaleSectionBytes(k, head_dim)));
  if (layout.k_scales.size_bytes > 0) {
    EXPECT_EQ(layout.k_scales.offset_bytes, Bytes(ScalesOffset(k, head_dim)));
  }
  if (k_mean) {
    EXPECT_EQ(layout.k_mean.offset_bytes, Bytes(MeanOffset(k, head_dim)));
    EXPECT_EQ(layout.k_mean.size_bytes, 2 * Bytes(head_dim));
  }
  EXPECT_EQ(layout.v_codes.offset_bytes, k_bytes);
  EXPECT_EQ(layout.v_codes.size_bytes, Bytes(cuda::CodeSectionBytes(v, head_dim)));
  EXPECT_EQ(layout.v_scales.size_bytes, Bytes(cuda::ScaleSectionBytes(v, head_dim)));
  if (layout.v_scales.size_bytes > 0) {
    EXPECT_EQ(layout.v_scales.offset_bytes, k_bytes + Bytes(ScalesOffset(v, head_dim)));
  }
  EXPECT_EQ(layout.slice_bytes, k_bytes + Bytes(HalfBytes(v, head_dim, false)));
}

TEST(PageFormatTest, LayoutIsThatOfEveryPage) {
  int layouts = 0;
  for (const Codec k : ImplementedCodecs()) {
    for (const Codec v : ImplementedCodecs()) {
      for (const int head_dim : kGpuHeadDims) {
        for (const bool k_mean : {false, true}) {
          if (k_mean && !IsQuantized(k)) continue;
          SCOPED_TRACE(absl::StrCat("k=", CodecName(k), " v=", CodecName(v), " head_dim ", head_dim,
                                    k_mean ? " with K mean" : ""));
          const absl::StatusOr<PageLayout> layout = PageLayout::For({3, head_dim, k, v, k_mean});
          ASSERT_TRUE(layout.ok()) << layout.status();
          ExpectSameLayout(*layout);
          ++layouts;
        }
      }
    }
  }
  EXPECT_EQ(layouts, 3 * 12 * (12 + 10)) << "K mean only with the ten quantized codecs of K";
}

TEST(PageFormatTest, ConstantsAreThoseOfTheFormat) {
  EXPECT_EQ(Bytes(cuda::kPageHeaderBytes), turbokv::kPageHeaderBytes);
  EXPECT_EQ(Bytes(kSectionAlignment), kSectionAlignmentBytes);
  EXPECT_EQ(Bytes(kHeaderExponentsOffset), offsetof(PageHeader, k_exponent));
  EXPECT_EQ(Bytes(kHeaderExponentsOffset) + 2, offsetof(PageHeader, v_exponent));
}

TEST(PageFormatTest, OnlyHeadsWithoutPaddingAreSupported) {
  for (const int head_dim : kHeadDims) {
    const bool supported = head_dim == 64 || head_dim == 128 || head_dim == 256;
    EXPECT_EQ(SupportedHeadDim(head_dim), supported) << head_dim;
  }
  for (const Codec codec : ImplementedCodecs()) {
    for (const int head_dim : kGpuHeadDims) {
      const absl::StatusOr<PageLayout> layout = PageLayout::For({1, head_dim, codec, codec, false});
      ASSERT_TRUE(layout.ok()) << layout.status();
      EXPECT_EQ(layout->k_padded_dim, head_dim) << CodecName(codec);
    }
  }
}

// The part of N(0, 1) between a and b.
double GaussianShare(double a, double b) {
  return 0.5 * (std::erf(b / std::sqrt(2.0)) - std::erf(a / std::sqrt(2.0)));
}

// How far the integers are from the centroids, relative to the centroids' own size; root mean
// square over the values of a Gaussian.
double RelativeDeviation(Codec codec) {
  const double sigma = 1.0 / std::sqrt(128.0);
  const IntegerTable table = IntegerTableOf(codec);
  const absl::Span<const double> centroids = TurboCentroids(codec);
  const absl::Span<const double> thresholds = TurboThresholds(codec);
  const int count = table.count;
  EXPECT_EQ(centroids.size(), Bytes(2 * count));
  double error = 0;
  double size = 0;
  for (int i = 0; i < count; ++i) {
    const double centroid = centroids[count + i];
    const double from = i == 0 ? 0.0 : thresholds[count + i - 1] / sigma;
    const double to = i == count - 1 ? INFINITY : thresholds[count + i] / sigma;
    const double difference = table.magnitudes[i] * sigma / table.divisor - centroid;
    error += GaussianShare(from, to) * difference * difference;
    size += GaussianShare(from, to) * centroid * centroid;
    EXPECT_DOUBLE_EQ(centroids[count - 1 - i], -centroid) << "the lower half mirrors the upper";
  }
  return std::sqrt(error / size);
}

TEST(PageFormatTest, IntegerTablesAreCloseToTheCentroids) {
  EXPECT_LT(RelativeDeviation(Codec::kTurbo2), 0.0005);
  EXPECT_LT(RelativeDeviation(Codec::kTurbo3), 0.002);
  EXPECT_LT(RelativeDeviation(Codec::kTurbo4), 0.004);
}

TEST(PageFormatTest, IntegerTablesAscendWithinABytesRange) {
  for (const Codec codec : {Codec::kTurbo2, Codec::kTurbo3, Codec::kTurbo4}) {
    const IntegerTable table = IntegerTableOf(codec);
    EXPECT_EQ(table.count, 1 << (TraitsOf(codec).code_bits - 1));
    for (int i = 0; i < table.count; ++i) {
      EXPECT_GT(table.magnitudes[i], i == 0 ? 0 : table.magnitudes[i - 1]);
      EXPECT_LE(table.magnitudes[i], 127);
    }
  }
}

}  // namespace
}  // namespace turbokv::cuda
