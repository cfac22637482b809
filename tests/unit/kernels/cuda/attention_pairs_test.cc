// Every pair of codecs that a policy can name, most of them compiled on first use.
#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cuda/attention/attention.h"
#include "tests/unit/kernels/cuda/attention_harness.h"

namespace turbokv::cuda::testing {
namespace {

class AttentionPairsTest : public GpuTest {};

struct Kernel {
  Codec k;
  Codec v;
  int head_dim;
  int group;
};

// Compiles on all cores; the kernels are then there for the harness.
void CompileAll(const std::vector<Kernel>& kernels) {
  std::atomic<size_t> next = 0;
  const auto compile = [&] {
    for (size_t i = next++; i < kernels.size(); i = next++) {
      const Kernel& kernel = kernels[i];
      AttentionConfig config;
      config.shape = {2 * kernel.group, 2, kernel.head_dim};
      config.pools = OnePool(kernel.k, kernel.v);
      config.pools[0].kv_heads = 2;
      config.pools[0].head_dim = kernel.head_dim;
      const auto attention = DecodeAttention::Create(config);
      EXPECT_TRUE(attention.ok()) << attention.status();
    }
  };
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < std::max(1u, std::thread::hardware_concurrency()); ++i) {
    threads.emplace_back(compile);
  }
  for (std::thread& thread : threads) thread.join();
}

void ExpectAllMatch(const std::vector<Kernel>& kernels) {
  CompileAll(kernels);
  for (const Kernel& kernel : kernels) {
    SCOPED_TRACE(absl::StrCat(CodecName(kernel.k), "/", CodecName(kernel.v), " head_dim ",
                              kernel.head_dim, " group ", kernel.group));
    AttentionHarness({.shape = {2 * kernel.group, 2, kernel.head_dim},
                      .pools = OnePool(kernel.k, kernel.v),
                      .sequences = {{3, 5}, {1, 0}}})
        .ExpectMatch();
  }
}

TEST_F(AttentionPairsTest, EveryPairMatches) {
  std::vector<Kernel> kernels;
  for (Codec k : ::turbokv::testing::ImplementedCodecs()) {
    for (Codec v : ::turbokv::testing::ImplementedCodecs()) kernels.push_back({k, v, 128, 4});
  }
  ExpectAllMatch(kernels);
}

TEST_F(AttentionPairsTest, EveryCodecMatchesInEveryShape) {
  std::vector<Kernel> kernels;
  for (Codec codec : ::turbokv::testing::ImplementedCodecs()) {
    for (int head_dim : {64, 128, 256}) {
      for (int group : {4, 16}) kernels.push_back({codec, codec, head_dim, group});
    }
  }
  ExpectAllMatch(kernels);
}

}  // namespace
}  // namespace turbokv::cuda::testing
