// cuda::DequantizePages against reference::DecodePage.
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/unit/kernels/cuda/dequantize_harness.h"

namespace turbokv::cuda {
namespace {

using testing::DeviceBuffer;
using testing::ExpectDequantized;
using testing::kSinkKinds;
using testing::MakeSink;
using testing::PagesOnDevice;
using testing::ReferencePages;
using testing::SinkKind;
using turbokv::testing::AdversarialValues;
using turbokv::testing::GaussianValues;
using turbokv::testing::ImplementedCodecs;
using turbokv::testing::LayoutOf;
using turbokv::testing::NamedValues;

constexpr ValueType kTypes[] = {ValueType::kBf16, ValueType::kFp16, ValueType::kFp32};

class DequantizeTest : public testing::GpuTest {};

TEST_F(DequantizeTest, MatchesTheReferenceForEveryCodecHeadDimAndType) {
  uint32_t seed = 0;
  for (Codec codec : ImplementedCodecs()) {
    for (int head_dim : {64, 128, 256}) {
      const bool k_mean = ++seed % 3 != 0;
      const PageLayout layout = LayoutOf(2, head_dim, codec, codec, k_mean);
      const PagesOnDevice pages(layout,
                                ReferencePages(layout, ValueType::kBf16, GaussianValues(seed), 3));
      for (ValueType type : kTypes) {
        SCOPED_TRACE(absl::StrCat(CodecName(codec), ", head_dim ", head_dim, ", type ",
                                  static_cast<int>(type), ", K mean ", k_mean));
        ExpectDequantized(pages, MakeSink(kSinkKinds[++seed % 4], type, layout.shape, 3));
      }
    }
  }
}

TEST_F(DequantizeTest, KAndVMayDiffer) {
  const Codec codecs[] = {Codec::kTurbo4, Codec::kFp8E4m3, Codec::kInt5, Codec::kBf16};
  for (Codec k : codecs) {
    for (Codec v : codecs) {
      SCOPED_TRACE(absl::StrCat(CodecName(k), "/", CodecName(v)));
      const PageLayout layout = LayoutOf(1, 128, k, v, true);
      const PagesOnDevice pages(layout,
                                ReferencePages(layout, ValueType::kBf16, GaussianValues(3), 1));
      ExpectDequantized(pages, MakeSink(SinkKind::kNhd, ValueType::kFp32, layout.shape, 1));
    }
  }
}

TEST_F(DequantizeTest, EverySinkLayout) {
  const PageLayout layout = LayoutOf(5, 128, Codec::kTurbo3, Codec::kTurbo4, true);
  const PagesOnDevice pages(layout, ReferencePages(layout, ValueType::kBf16, GaussianValues(1), 7));
  for (SinkKind kind : kSinkKinds) {
    for (ValueType type : kTypes) {
      SCOPED_TRACE(absl::StrCat("sink ", static_cast<int>(kind), " type ", static_cast<int>(type)));
      ExpectDequantized(pages, MakeSink(kind, type, layout.shape, 7));
    }
  }
}

TEST_F(DequantizeTest, KOrVAlone) {
  const PageLayout layout = LayoutOf(2, 64, Codec::kInt8, Codec::kTurbo2, true);
  const PagesOnDevice pages(layout, ReferencePages(layout, ValueType::kFp16, GaussianValues(1), 2));
  const testing::SinkLayout sink = MakeSink(SinkKind::kHnd, ValueType::kFp16, layout.shape, 2);
  ExpectDequantized(pages, sink, /*want_k=*/true, /*want_v=*/false);
  ExpectDequantized(pages, sink, /*want_k=*/false, /*want_v=*/true);
}

// Exponents other than 0, denormals, values that no fp16 or bf16 reaches.
TEST_F(DequantizeTest, MatchesTheReferenceForAdversarialValues) {
  for (const NamedValues& values : AdversarialValues()) {
    for (Codec codec : ImplementedCodecs()) {
      const PageLayout layout = LayoutOf(1, 128, codec, codec, true);
      const PagesOnDevice pages(layout, ReferencePages(layout, ValueType::kFp32, values.value, 1));
      for (ValueType type : kTypes) {
        SCOPED_TRACE(
            absl::StrCat(values.name, ", ", CodecName(codec), ", type ", static_cast<int>(type)));
        ExpectDequantized(pages, MakeSink(SinkKind::kNhd, type, layout.shape, 1));
      }
    }
  }
}

TEST_F(DequantizeTest, TokensThatAPageDoesNotHaveAreNotWritten) {
  const PageLayout layout = LayoutOf(2, 128, Codec::kTurbo3, Codec::kQ8_0, true);
  for (int tokens : {1, 33, 127}) {
    const PagesOnDevice pages(
        layout, ReferencePages(layout, ValueType::kBf16, GaussianValues(1), 2, tokens));
    ExpectDequantized(pages, MakeSink(SinkKind::kPagedNhd, ValueType::kBf16, layout.shape, 2));
  }
}

TEST_F(DequantizeTest, MayBeCaptured) {
  const PageLayout layout = LayoutOf(1, 128, Codec::kTurbo3, Codec::kTurbo3, true);
  const PagesOnDevice pages(layout, ReferencePages(layout, ValueType::kBf16, GaussianValues(1), 1));
  DeviceBuffer<uint16_t> values[2][2] = {
      {DeviceBuffer<uint16_t>(128 * 128), DeviceBuffer<uint16_t>(128 * 128)},
      {DeviceBuffer<uint16_t>(128 * 128), DeviceBuffer<uint16_t>(128 * 128)}};
  DequantizeArguments arguments;
  arguments.pool = pages.pool();
  arguments.page_ids = pages.page_ids();
  arguments.pages = 1;
  arguments.sink.token_stride = 128;
  arguments.sink.head_stride = 128;
  cudaStream_t stream;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  for (bool captured : {false, true}) {
    arguments.sink.k = values[captured][0].data();
    arguments.sink.v = values[captured][1].data();
    if (!captured) {
      ASSERT_TRUE(DequantizePages(arguments, stream).ok());
      continue;
    }
    cudaGraph_t graph;
    cudaGraphExec_t executable;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
    ASSERT_TRUE(DequantizePages(arguments, stream).ok());
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&executable, graph, 0), cudaSuccess);
    ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
  }
  for (int tensor : {0, 1}) EXPECT_EQ(values[0][tensor].Download(), values[1][tensor].Download());
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace turbokv::cuda
