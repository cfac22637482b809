// A worker on the service's GPU maps its slabs and attends on pages where they lie.
#include <cuda_runtime_api.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "absl/time/clock.h"
#include "client/cuda/cuda_page_reader.h"
#include "client/cuda/cuda_slab_importer.h"
#include "client/device_pages.h"
#include "client/share/share_session.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/attention.h"
#include "kernels/cuda/attention/attention.h"
#include "tests/unit/client/cuda/in_place_blocks.h"
#include "tests/unit/client/cuda/in_place_service.h"
#include "tests/unit/client/share/share_testing.h"
#include "tests/unit/kernels/cuda/gpu.h"

namespace turbokv::testing {
namespace {

using cuda::testing::DeviceBuffer;

constexpr AttentionShape kShape = {.q_heads = 32, .kv_heads = 8, .head_dim = 128};
constexpr size_t kQueryValues = size_t{32} * 128;
constexpr size_t kNeededBytes = size_t{8} << 30;

class CudaInPlaceTest : public cuda::testing::GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    if (IsSkipped()) return;
    size_t free_bytes = 0, total_bytes = 0;
    ASSERT_EQ(cudaMemGetInfo(&free_bytes, &total_bytes), cudaSuccess);
    if (free_bytes < kNeededBytes) {
      GTEST_SKIP() << free_bytes << " bytes of GPU memory are free, needed " << kNeededBytes;
    }
    auto service = InPlaceService::Start(folder_.Path("share.sock"));
    ASSERT_TRUE(service.ok()) << service.status();
    service_ = *std::move(service);
    auto session = ShareSession::Connect(
        {.path = folder_.Path("share.sock"), .identity = {"default", "default"}});
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
    auto read = MakeCudaReadDevice();
    ASSERT_TRUE(read.ok()) << read.status();
    read_ = *std::move(read);
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    for (float& value : q_) value = normal(rng);
  }

  // As DeviceMemory::Open has it from Describe, which this service without gRPC lacks: the first
  // offer tells.
  void OpenPool(const LeasedPlaces& found) {
    auto offer = session_->MapSlab(found.lease_id, found.places[0].pool, 0);
    ASSERT_TRUE(offer.ok()) << offer.status();
    auto importer = MakeCudaSlabImporter(offer->slab.geometry);
    ASSERT_TRUE(importer.ok()) << importer.status();
    importer_ = importer->get();
    auto pool = MappedPool::Create(session_, found.places[0].pool, offer->slab.geometry,
                                   *std::move(importer));
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_ = *std::move(pool);
  }

  std::vector<uint8_t> Download(const uint8_t* device, size_t bytes) {
    std::vector<uint8_t> host(bytes);
    EXPECT_EQ(cudaMemcpy(host.data(), device, bytes, cudaMemcpyDeviceToHost), cudaSuccess);
    return host;
  }

  void ExpectPages(const DevicePages& pages) {
    for (const int layer : {0, 1, 17, 31}) {
      const std::vector<int32_t> ids = pages.PageIds(layer);
      for (const int64_t block : {int64_t{0}, int64_t{1}, pages.blocks() / 2, pages.blocks() - 1}) {
        const std::vector<uint8_t> expected = maker_.Page(layer, block);
        EXPECT_EQ(Download(pages.device_base() + kPageIdBytes * ids[block], expected.size()),
                  expected)
            << "layer " << layer << ", block " << block;
      }
    }
  }

  std::vector<float> AttendInPlace(const DevicePages& pages, int layer) {
    const PageShape shape = spec_->layer_layouts[layer].shape;
    cuda::AttentionConfig config;
    config.shape = kShape;
    config.max_pages = static_cast<int>(pages.blocks());
    config.pools = {shape};
    config.value_type = ValueType::kFp32;
    const auto attention = cuda::DecodeAttention::Create(config);
    EXPECT_TRUE(attention.ok()) << attention.status();
    if (!attention.ok()) return {};
    const cuda::PagePool pool = {shape, const_cast<uint8_t*>(pages.device_base()), kPageIdBytes,
                                 pages.page_count()};
    DeviceBuffer<int32_t> table(pages.PageIds(layer));
    DeviceBuffer<int32_t> tokens(
        std::vector<int32_t>{static_cast<int32_t>(pages.blocks() * kPageTokens)});
    DeviceBuffer<float> q(q_), out(kQueryValues);
    DeviceBuffer<uint8_t> workspace((*attention)->workspace_bytes());
    cuda::AttentionArguments arguments;
    arguments.batch = 1;
    arguments.pools = &pool;
    arguments.block_tables = table.data();
    arguments.packed_tokens = tokens.data();
    arguments.q = q.data();
    arguments.out = out.data();
    arguments.softmax_scale = softmax_scale_;
    arguments.workspace = workspace.data();
    EXPECT_EQ((*attention)->CheckTables(arguments, nullptr), absl::OkStatus());
    EXPECT_EQ((*attention)->Run(arguments, nullptr), absl::OkStatus());
    EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    return out.Download();
  }

  std::vector<float> AttendOnCpu(int layer, int64_t blocks) {
    std::vector<std::vector<uint8_t>> bytes;
    for (int64_t block = 0; block < blocks; ++block) bytes.push_back(maker_.Page(layer, block));
    const std::vector<absl::Span<const uint8_t>> pages(bytes.begin(), bytes.end());
    const std::vector<int64_t> positions = {blocks * kPageTokens - 1};
    std::vector<float> out(kQueryValues);
    AttentionOptions options;
    options.softmax_scale = softmax_scale_;
    SequenceKv sequence;
    sequence.pages = pages;
    AttentionQueries queries;
    queries.positions = positions;
    queries.q = q_.data();
    queries.out = out.data();
    EXPECT_EQ(cpu::DecodeAttention(kShape, options, sequence, queries), absl::OkStatus());
    return out;
  }

  // Rows within `tolerance` of their norm.
  static void ExpectNear(const std::vector<float>& actual, const std::vector<float>& expected,
                         double tolerance) {
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t row = 0; row < actual.size(); row += 128) {
      double error = 0, norm = 0;
      for (size_t i = row; i < row + 128; ++i) {
        error += std::pow(double{actual[i]} - expected[i], 2);
        norm += std::pow(double{expected[i]}, 2);
      }
      EXPECT_LE(std::sqrt(error), tolerance * std::sqrt(norm)) << "row " << row / 128;
    }
  }

  const SocketFolder folder_;
  const std::shared_ptr<const ResolvedSpec> spec_ = InPlaceSpec();
  const BlockMaker maker_{spec_};
  const float softmax_scale_ = 1.0f / std::sqrt(128.0f);
  std::vector<float> q_ = std::vector<float>(kQueryValues);
  std::unique_ptr<InPlaceService> service_;
  std::shared_ptr<ShareSession> session_;
  ReadDevice read_;
  std::unique_ptr<MappedPool> pool_;
  CudaSlabImporter* importer_ = nullptr;  // the pool's
};

TEST_F(CudaInPlaceTest, AttendsOnTheServicesPagesAndOutlivesIt) {
  for (const int64_t blocks : {int64_t{9}, kInPlaceBlocks}) {
    absl::Time begin = absl::Now();
    const auto found = service_->Lookup(blocks);
    ASSERT_TRUE(found.ok()) << found.status();
    const absl::Duration lookup = absl::Now() - begin;
    if (pool_ == nullptr) {
      ASSERT_NO_FATAL_FAILURE(OpenPool(*found));
    }
    auto pages = DevicePages::Map(pool_.get(), found->lease_id, spec_, found->places);
    ASSERT_TRUE(pages.ok()) << pages.status();
    const absl::Duration mapped = absl::Now() - begin;
    ASSERT_EQ(pages->CheckLayer(0, read_), absl::OkStatus());
    const absl::Duration readable = absl::Now() - begin;
    begin = absl::Now();
    ASSERT_EQ(pages->CheckUnchanged(0, read_), absl::OkStatus());
    std::printf(
        "%ld blocks: found after %.3f ms, mapped %.3f ms, first layer readable %.3f ms; "
        "%.3f ms to check a layer again; mapped %s\n",
        static_cast<long>(blocks), absl::ToDoubleMilliseconds(lookup),
        absl::ToDoubleMilliseconds(mapped), absl::ToDoubleMilliseconds(readable),
        absl::ToDoubleMilliseconds(absl::Now() - begin),
        importer_->read_only() ? "read-only" : "writable: this driver knows no read-only");
    ExpectPages(*pages);
    for (int layer = 1; layer < spec_->spec.layers; ++layer) {
      ASSERT_EQ(pages->CheckLayer(layer, read_), absl::OkStatus());
    }
    const std::vector<float> attended = AttendInPlace(*pages, 17);
    ASSERT_NO_FATAL_FAILURE(ExpectNear(attended, AttendOnCpu(17, blocks), 1e-2));
    if (blocks < kInPlaceBlocks) continue;

    service_->Kill();
    ExpectPages(*pages);
    EXPECT_EQ(AttendInPlace(*pages, 17), attended);
    EXPECT_EQ(pages->CheckUnchanged(17, read_), absl::OkStatus());
    EXPECT_FALSE(session_->alive());
  }
  size_t free_before = 0, free_after = 0, total_bytes = 0;
  ASSERT_EQ(cudaMemGetInfo(&free_before, &total_bytes), cudaSuccess);
  pool_ = nullptr;
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  ASSERT_EQ(cudaMemGetInfo(&free_after, &total_bytes), cudaSuccess);
  EXPECT_GT(free_after, free_before + (size_t{2} << 30)) << "the last mapping held the memory";
}

}  // namespace
}  // namespace turbokv::testing
