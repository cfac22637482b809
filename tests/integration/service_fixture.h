// A server on real sockets inside the test, clients of it, and K/V to store.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "client/cache_spec.h"
#include "client/channel.h"
#include "client/decode_reader.h"
#include "client/prefill_writer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/kv_view.h"
#include "server/rpc/server.h"

namespace turbokv::testing {

// Loopback, any port, 64 MiB, everything sampled.
ServerConfig TestConfig();

std::unique_ptr<Server> StartServer(const ServerConfig& config,
                                    std::vector<std::unique_ptr<Device>> devices = {});
std::shared_ptr<CacheChannel> ConnectTo(const Server& server, const std::string& tenant = "default",
                                        const std::string& client = "default");

// A small model: 3 layers, 2 KV heads, head_dim 64, bf16, the default policy.
CacheSpec TestSpec();
std::shared_ptr<const ResolvedSpec> Resolve(const CacheSpec& spec);

// K and V of all layers of a prompt: [layers][tokens][kv_heads][head_dim], normally distributed
// with a K bias, in the spec's source type. The same seed gives the same values for every prefix.
class Prompt {
 public:
  Prompt(const CacheSpec& spec, int64_t tokens, uint32_t seed);

  absl::Span<const int32_t> token_ids() const { return token_ids_; }
  int64_t tokens() const { return static_cast<int64_t>(token_ids_.size()); }
  // Tokens [begin, end) of a layer.
  KvView View(int layer, int64_t begin, int64_t end) const;
  KvView View(int layer) const { return View(layer, 0, tokens()); }
  // Where a value is, to spoil it.
  uint8_t* MutableK(int layer, int64_t token, int head, int channel);

 private:
  size_t RowBytes() const;

  CacheSpec spec_;
  std::vector<int32_t> token_ids_;
  std::vector<std::vector<uint8_t>> k_, v_;  // by layer
};

// Stores every layer. `options.first_token` onwards.
absl::StatusOr<StoreResult> StorePrompt(std::shared_ptr<CacheChannel> channel,
                                        std::shared_ptr<const ResolvedSpec> spec,
                                        const Prompt& prompt, const StoreOptions& options = {});

// The bytes that the reference encoder gives for one page of a prompt.
std::vector<uint8_t> ReferencePage(const ResolvedSpec& spec, const PageLayout& layout,
                                   const Prompt& prompt, int layer, int64_t begin, int64_t end);

// One fetched layer, copied.
struct LayerCopy {
  std::vector<std::vector<uint8_t>> pages, tail_pages;
  bool operator==(const LayerCopy&) const = default;
};
absl::StatusOr<std::vector<LayerCopy>> FetchAll(DecodeReader* reader,
                                                const FetchOptions& options = {});

// Waits until `condition` holds, at most ten seconds.
bool Eventually(const std::function<bool()>& condition);

MATCHER_P2(StatusIs, code, message, "") {
  *result_listener << arg;
  return arg.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(arg.message()), result_listener);
}

}  // namespace turbokv::testing

#define ASSERT_OK(expr)                                                                   \
  do {                                                                                    \
    const auto& assert_ok_value = (expr);                                                 \
    ASSERT_TRUE(assert_ok_value.ok()) << ::turbokv::testing::StatusText(assert_ok_value); \
  } while (false)

namespace turbokv::testing {
inline std::string StatusText(const absl::Status& status) { return status.ToString(); }
template <typename T>
std::string StatusText(const absl::StatusOr<T>& value) {
  return value.status().ToString();
}
}  // namespace turbokv::testing
