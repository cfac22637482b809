// What a wrong, foreign or unlucky client gets: a status code and a message that says why; and what
// it leaves behind: nothing. The requests are sent by generated stubs, as any client could.
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "client/wire/spec_conversion.h"
#include "client/wire/status_conversion.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "tests/integration/service_fixture.h"
#include "turbokv/v1/cache.grpc.pb.h"

namespace turbokv::testing {
namespace {

using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

class BadInputTest : public ::testing::Test {
 protected:
  explicit BadInputTest(const ServerConfig& config = TestConfig()) : server_(StartServer(config)) {}

  // An announcement of `tokens` tokens, and chunks of one bf16 value after the other.
  v1::StoreRequest Open(int64_t tokens, bool with_tail = true) const {
    v1::StoreRequest request;
    v1::StoreOpen* open = request.mutable_open();
    *open->mutable_spec() = ToProto(raw_spec_);
    open->set_encoding(v1::STORE_ENCODING_RAW);
    open->set_token_count(tokens);
    open->set_block_keys(std::string(tokens / kPageTokens * sizeof(Digest), 'k'));
    for (int64_t block = 0; block < tokens / kPageTokens; ++block) {
      (*open->mutable_block_keys())[block * sizeof(Digest)] = static_cast<char>(block);
    }
    if (with_tail) open->set_tail_key(std::string(sizeof(Digest), 't'));
    return request;
  }

  v1::StoreRequest Chunk(int layer, int64_t token_offset, int tokens) const {
    v1::StoreRequest request;
    request.mutable_chunk()->set_layer(layer);
    request.mutable_chunk()->set_token_offset(token_offset);
    request.mutable_chunk()->set_token_count(tokens);
    request.set_data(std::string(tokens * spec_->raw_token_bytes(), '\x3f'));
    return request;
  }

  absl::Status Store(const std::vector<v1::StoreRequest>& messages,
                     const std::string& tenant = "default/default") {
    grpc::ClientContext context;
    context.AddMetadata("turbokv-tenant", tenant);
    v1::StoreResponse response;
    auto writer = stub_->Store(&context, &response);
    for (const v1::StoreRequest& message : messages) {
      if (!writer->Write(message)) break;
    }
    writer->WritesDone();
    const absl::Status status = FromGrpcStatus(writer->Finish(), "store");
    const auto hint = context.GetServerTrailingMetadata().find("retry-after-ms");
    EXPECT_EQ(hint != context.GetServerTrailingMetadata().end(), absl::IsResourceExhausted(status));
    return status;
  }

  absl::Status FetchWith(uint64_t lease_id, const std::string& tenant) {
    grpc::ClientContext context;
    context.AddMetadata("turbokv-tenant", tenant);
    v1::FetchRequest request;
    request.set_lease_id(lease_id);
    auto reader = stub_->Fetch(&context, request);
    v1::FetchResponse response;
    while (reader->Read(&response)) {
    }
    return FromGrpcStatus(reader->Finish(), "fetch");
  }

  void ExpectNothingLeft() {
    EXPECT_TRUE(Eventually([&] { return server_->cache().Usage().pending_entries == 0; }));
    const CacheUsage usage = server_->cache().Usage();
    EXPECT_EQ(usage.blocks, 0);
    EXPECT_EQ(usage.tails, 0);
    EXPECT_EQ(usage.used_bytes, 0u);
  }

  CacheSpec raw_spec_ = TestSpec();
  const std::shared_ptr<const ResolvedSpec> spec_ = Resolve(raw_spec_);
  const std::unique_ptr<Server> server_;
  const std::shared_ptr<CacheChannel> channel_ = ConnectTo(*server_);
  const std::unique_ptr<v1::CacheService::Stub> stub_ =
      v1::CacheService::NewStub(channel_->grpc_channel());
};

TEST_F(BadInputTest, ForeignClientStoresWithPlainProtobuf) {
  std::vector<v1::StoreRequest> messages = {Open(200)};
  for (int layer = 0; layer < raw_spec_.layers; ++layer) {
    messages.push_back(Chunk(layer, 0, 100));
    messages.push_back(Chunk(layer, 100, 28));
    messages.push_back(Chunk(layer, 128, 72));
  }
  EXPECT_EQ(Store(messages), absl::OkStatus());
  EXPECT_EQ(server_->cache().Usage().blocks, 1);
  EXPECT_EQ(server_->cache().Usage().tails, 1);
}

TEST_F(BadInputTest, PolicyAndSpecAreChecked) {
  const auto with = [&](auto change) {
    v1::StoreRequest open = Open(128);
    change(open.mutable_open());
    return Store({open});
  };
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_spec()->set_policy("k=int5,v=zzz9"); }),
              StatusIs(kInvalid, HasSubstr("zzz9")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_spec()->set_policy("k=;;=="); }),
              StatusIs(kInvalid, HasSubstr("policy")));
  EXPECT_THAT(
      with([](v1::StoreOpen* open) { open->mutable_spec()->set_policy("k=int5;7:k=bf16"); }),
      StatusIs(kInvalid, HasSubstr("7")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_spec()->set_policy("turbo3_tcq"); }),
              StatusIs(absl::StatusCode::kUnimplemented, HasSubstr("turbo3_tcq")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_spec()->set_head_dim(72); }),
              StatusIs(kInvalid, HasSubstr("72")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_spec()->set_layers(4'000'000'000); }),
              StatusIs(kInvalid, HasSubstr("4000000000")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_spec()->set_page_tokens(64); }),
              StatusIs(kInvalid, HasSubstr("page_tokens is 64")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_spec()->clear_source_type(); }),
              StatusIs(kInvalid, HasSubstr("source_type is 0")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->clear_encoding(); }),
              StatusIs(kInvalid, HasSubstr("encoding is 0")));
  EXPECT_THAT(with([](v1::StoreOpen* open) {
                open->mutable_spec()->set_kv_heads(1024);
                open->mutable_spec()->set_head_dim(256);
              }),
              StatusIs(kInvalid, HasSubstr("at most 67108864")));
  ExpectNothingLeft();
}

TEST_F(BadInputTest, DeclaredSizesAreCheckedBeforeAnythingIsAllocated) {
  const auto with = [&](auto change) {
    v1::StoreRequest open = Open(256);
    change(open.mutable_open());
    return Store({open});
  };
  constexpr uint64_t kHuge = uint64_t{1} << 60;
  EXPECT_THAT(
      with([](v1::StoreOpen* open) { open->set_token_count(kHuge); }),
      StatusIs(kInvalid, HasSubstr("token_count is 1152921504606846976; expected 1..8388608")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->set_first_token(kHuge); }),
              StatusIs(kInvalid, HasSubstr("first_token is 1152921504606846976")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->set_token_count(0); }),
              StatusIs(kInvalid, HasSubstr("token_count is 0")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->set_first_token(64); }),
              StatusIs(kInvalid, HasSubstr("first_token is 64; expected a multiple of 128")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->mutable_block_keys()->pop_back(); }),
              StatusIs(kInvalid, HasSubstr("the length of block_keys is 63; expected 64")));
  EXPECT_THAT(with([](v1::StoreOpen* open) { open->set_tail_key("short"); }),
              StatusIs(kInvalid, HasSubstr("the length of tail_key is 5; expected 0 or 32")));
  EXPECT_THAT(with([](v1::StoreOpen* open) {
                open->clear_tail_key();
                open->set_token_count(257);
              }),
              StatusIs(kInvalid, HasSubstr("token_count is 257; expected a multiple of 128")));
  EXPECT_THAT(with([](v1::StoreOpen* open) {
                open->set_first_token(1280);
                open->set_token_count(130);
                open->mutable_block_keys()->resize(32);
              }),
              StatusIs(kInvalid, HasSubstr("layers 0..2 missing")))
      << "a tail that lies within what is sent is taken";
  EXPECT_THAT(with([](v1::StoreOpen* open) {
                open->set_first_token(1280);
                open->set_token_count(100);
                open->clear_block_keys();
              }),
              StatusIs(kInvalid, HasSubstr("first_token 1280 lies inside the tail, which begins "
                                           "at token 1152 of 1380")));
  ExpectNothingLeft();
}

TEST_F(BadInputTest, ChunksThatDisagreeWithTheirSize) {
  v1::StoreRequest chunk = Chunk(0, 0, 64);
  chunk.mutable_data()->resize(chunk.data().size() - 4);
  EXPECT_THAT(Store({Open(256), chunk}),
              StatusIs(kInvalid, HasSubstr("token_count 64 needs 32768 bytes, got 32764")));
  EXPECT_THAT(
      Store({Open(256), Chunk(0, 0, 129)}),
      StatusIs(kInvalid, HasSubstr("token_count is 129 at token_offset 0; expected 1..128")));
  EXPECT_THAT(Store({Open(256), Chunk(0, 0, 64), Chunk(0, 64, 65)}),
              StatusIs(kInvalid, HasSubstr("expected 1..64")));
  EXPECT_THAT(Store({Open(256), Chunk(0, 0, 0)}),
              StatusIs(kInvalid, HasSubstr("token_count is 0")));
  chunk = Chunk(0, 0, 64);
  chunk.mutable_data()->resize((1 << 20) + 1);
  EXPECT_THAT(Store({Open(256), chunk}),
              StatusIs(kInvalid, HasSubstr("a chunk of 1048577 bytes; expected at most 1048576")));
  chunk = Chunk(0, 0, 64);
  chunk.mutable_chunk()->set_token_count(0xffffffff);
  EXPECT_THAT(Store({Open(256), chunk}), StatusIs(kInvalid, HasSubstr("4294967295")));
  ExpectNothingLeft();
}

TEST_F(BadInputTest, LayersMissingRepeatedOrOutOfOrder) {
  const auto layer = [&](int index) { return Chunk(index, 0, 128); };
  EXPECT_THAT(Store({Open(128), layer(0), layer(2)}),
              StatusIs(kInvalid, HasSubstr("layer 1 missing: got 2 after 0")));
  EXPECT_THAT(Store({Open(128), layer(1)}),
              StatusIs(kInvalid, HasSubstr("layer 0 missing: got 1 at the start")));
  EXPECT_THAT(Store({Open(128), layer(0), layer(1), layer(0)}),
              StatusIs(kInvalid, HasSubstr("layer 0 repeated")));
  EXPECT_THAT(Store({Open(128), layer(0), layer(0)}),
              StatusIs(kInvalid, HasSubstr("layer 0 repeated")));
  EXPECT_THAT(Store({Open(128), layer(0), layer(3)}),
              StatusIs(kInvalid, HasSubstr("layer is 3; the spec has layers 0..2")));
  EXPECT_THAT(Store({Open(256), layer(0), layer(1)}),
              StatusIs(kInvalid, HasSubstr("layer 0 incomplete: 128 of 256 tokens came before")));
  EXPECT_THAT(Store({Open(256), Chunk(0, 128, 128)}),
              StatusIs(kInvalid, HasSubstr("expected token_offset 0, got 128")));
  EXPECT_THAT(Store({Open(128), layer(0), layer(1)}),
              StatusIs(kInvalid, HasSubstr("layers 2..2 missing: the stream ended")));
  EXPECT_THAT(Store({Open(128)}), StatusIs(kInvalid, HasSubstr("layers 0..2 missing")));
  ExpectNothingLeft();
}

TEST_F(BadInputTest, MessagesOutOfOrder) {
  EXPECT_THAT(Store({}), StatusIs(kInvalid, HasSubstr("ended before `open`")));
  EXPECT_THAT(Store({Chunk(0, 0, 128)}), StatusIs(kInvalid, HasSubstr("first message is not")));
  EXPECT_THAT(Store({Open(128), Open(128)}), StatusIs(kInvalid, HasSubstr("a second `open`")));
  EXPECT_THAT(Store({Open(128), v1::StoreRequest()}), StatusIs(kInvalid, HasSubstr("neither")));
  ExpectNothingLeft();
}

TEST_F(BadInputTest, MalformedIdentity) {
  for (const char* tenant : {"", "a/b/c", "a b", "tenant/", "/client"}) {
    EXPECT_THAT(Store({Open(128)}, tenant), StatusIs(kInvalid, HasSubstr("turbokv-tenant")))
        << tenant;
  }
  EXPECT_THAT(Store({Open(128)}, std::string(65, 'a')), StatusIs(kInvalid, HasSubstr("1..64")));
}

TEST_F(BadInputTest, NanInKIsNamed) {
  Prompt prompt(raw_spec_, 400, 1);
  const uint16_t nan = 0x7fc0;
  std::memcpy(prompt.MutableK(1, 300, 1, 17), &nan, sizeof(nan));
  EXPECT_THAT(StorePrompt(channel_, spec_, prompt).status(),
              StatusIs(kInvalid, HasSubstr("layer 1: K of token 300, head 1, channel 17 is NaN")));
  ExpectNothingLeft();
}

TEST_F(BadInputTest, DamagedOrForeignPagesAreRefused) {
  const Prompt prompt(raw_spec_, 256, 1);
  const auto store = [&](auto spoil) {
    auto writer = PrefillWriter::OpenPages(channel_, spec_, prompt.token_ids(), {});
    std::vector<std::vector<uint8_t>> pages;
    for (int layer = 0; layer < raw_spec_.layers; ++layer) {
      for (int64_t block = 0; block < 2; ++block) {
        pages.push_back(ReferencePage(*spec_, spec_->layer_layouts[layer], prompt, layer,
                                      block * kPageTokens, (block + 1) * kPageTokens));
      }
    }
    spoil(&pages);
    for (size_t i = 0; i < pages.size(); ++i) {
      const absl::Status status =
          (*writer)->WritePage(static_cast<int>(i / 2), static_cast<int64_t>(i % 2), pages[i]);
      if (!status.ok()) return status;
    }
    return (*writer)->Finish().status();
  };
  using Pages = std::vector<std::vector<uint8_t>>;
  EXPECT_THAT(store([](Pages* pages) { (*pages)[3][1000] ^= 1; }),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 1, block 1: ")));
  EXPECT_THAT(store([](Pages* pages) { std::swap((*pages)[0], (*pages)[1]); }),
              StatusIs(kInvalid, HasSubstr("layer 0, block 0: the page's first_token is 128")));
  EXPECT_THAT(store([](Pages* pages) { std::swap((*pages)[0], (*pages)[2]); }),
              StatusIs(kInvalid, HasSubstr("the page's layer is 1, expected 0")));
  EXPECT_THAT(store([](Pages* pages) { std::fill((*pages)[0].begin(), (*pages)[0].end(), 0); }),
              StatusIs(kInvalid, HasSubstr("layer 0, block 0: ")));
  ExpectNothingLeft();
}

TEST_F(BadInputTest, CutStreamLeavesNothing) {
  grpc::ClientContext context;
  v1::StoreResponse response;
  auto writer = stub_->Store(&context, &response);
  ASSERT_TRUE(writer->Write(Open(256)));
  ASSERT_TRUE(writer->Write(Chunk(0, 0, 128)));
  ASSERT_TRUE(Eventually([&] { return server_->cache().Usage().pending_entries == 3; }));
  EXPECT_GT(server_->cache().Usage().used_bytes, 0u);
  context.TryCancel();
  EXPECT_EQ(writer->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ExpectNothingLeft();

  const Prompt prompt(raw_spec_, 300, 1);
  {
    auto unfinished = PrefillWriter::Open(channel_, spec_, prompt.token_ids(), {});
    ASSERT_OK(unfinished);
    ASSERT_OK((*unfinished)->WriteLayer(0, prompt.View(0)));
  }
  ExpectNothingLeft();
  DecodeReader reader(channel_, spec_);
  const auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 0);
}

TEST_F(BadInputTest, LeasesThatAreUnknownExpiredOrForeign) {
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  LookupOptions options;
  options.lease = absl::Milliseconds(1500);
  const auto match = reader.Lookup(prompt.token_ids(), options);
  ASSERT_OK(match);
  EXPECT_THAT(FetchWith(match->lease_id, "default/other"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("lease")));
  EXPECT_THAT(FetchWith(match->lease_id, "other/default"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("lease")));
  EXPECT_THAT(FetchWith(match->lease_id ^ 1, "default/default"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("lease")));
  EXPECT_EQ(FetchWith(match->lease_id, "default/default"), absl::OkStatus());
  absl::SleepFor(match->lease + absl::Milliseconds(100));
  EXPECT_THAT(reader.Fetch({}, [](FetchedLayer) { return absl::OkStatus(); }),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("lease")));
}

TEST_F(BadInputTest, SpecsThatDifferAnywhereShareNothing) {
  const Prompt prompt(raw_spec_, 300, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  const auto blocks_found = [&](auto change) {
    CacheSpec other = raw_spec_;
    change(&other);
    DecodeReader reader(channel_, Resolve(other));
    const auto match = reader.Lookup(prompt.token_ids(), {});
    return match.ok() ? match->blocks + match->tail_found : -1;
  };
  EXPECT_EQ(blocks_found([](CacheSpec*) {}), 3);
  EXPECT_EQ(blocks_found([](CacheSpec* spec) { spec->source_type = ValueType::kFp16; }), 0);
  EXPECT_EQ(blocks_found([](CacheSpec* spec) { spec->rope = "theta=500000"; }), 0);
  EXPECT_EQ(blocks_found([](CacheSpec* spec) { spec->model_revision = "r2"; }), 0);
  EXPECT_EQ(blocks_found([](CacheSpec* spec) { spec->policy = "int6"; }), 0);
  EXPECT_EQ(blocks_found([](CacheSpec* spec) {
              spec->rank = 1;
              spec->world_size = 2;
            }),
            0);

  // The keys of one spec with the fingerprint of another.
  const std::vector<Digest> keys = BlockKeys(spec_->fingerprint, "", prompt.token_ids());
  grpc::ClientContext context;
  v1::LookupRequest request;
  request.set_spec_fingerprint(std::string(32, 'x'));
  request.set_block_keys(keys.data(), keys.size() * sizeof(Digest));
  v1::LookupResponse response;
  ASSERT_TRUE(stub_->Lookup(&context, request, &response).ok());
  EXPECT_EQ(response.matched_blocks(), 0u);
}

TEST_F(BadInputTest, MalformedLookups) {
  const auto lookup = [&](const std::string& fingerprint, const std::string& keys,
                          const std::string& tail_key) {
    grpc::ClientContext context;
    v1::LookupRequest request;
    request.set_spec_fingerprint(fingerprint);
    request.set_block_keys(keys);
    request.set_tail_key(tail_key);
    v1::LookupResponse response;
    return FromGrpcStatus(stub_->Lookup(&context, request, &response), "lookup");
  };
  const std::string digest(32, 'x');
  EXPECT_THAT(lookup("x", digest, ""), StatusIs(kInvalid, HasSubstr("spec_fingerprint is 1")));
  EXPECT_THAT(lookup(digest, "xy", ""), StatusIs(kInvalid, HasSubstr("block_keys is 2")));
  EXPECT_THAT(lookup(digest, digest, "x"), StatusIs(kInvalid, HasSubstr("tail_key is 1")));
  EXPECT_EQ(lookup(digest, std::string(65536 * 32, 'x'), ""), absl::OkStatus());
  EXPECT_THAT(lookup(digest, std::string(65537 * 32, 'x'), ""),
              StatusIs(kInvalid, HasSubstr("at most 65536 keys")));
}

TEST_F(BadInputTest, FlippedBitIsDataLossAndThenAMiss) {
  const Prompt prompt(raw_spec_, 600, 1);
  ASSERT_OK(StorePrompt(channel_, spec_, prompt));
  DecodeReader reader(channel_, spec_);
  auto match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  ASSERT_EQ(match->blocks, 4);
  const auto lease = server_->cache().FindLease(ClientIdentity(), match->lease_id);
  ASSERT_OK(lease);
  const absl::Span<const uint8_t> page = (*lease)->blocks[2].page(1);
  const_cast<uint8_t*>(page.data())[page.size() / 2] ^= 0x10;

  std::vector<int> layers;
  EXPECT_THAT(reader.Fetch({},
                           [&](FetchedLayer layer) {
                             layers.push_back(layer.layer);
                             return absl::OkStatus();
                           }),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("layer 1, block 2 is damaged")));
  EXPECT_THAT(layers, ::testing::ElementsAre(0)) << "the damaged layer was never delivered";
  match = reader.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);
  EXPECT_EQ(match->blocks, 2);
  ASSERT_OK(FetchAll(&reader));
}

class SmallPoolTest : public BadInputTest {
 protected:
  SmallPoolTest() : BadInputTest(Config()) {}
  static ServerConfig Config() {
    ServerConfig config = TestConfig();
    config.memory_bytes = size_t{4} << 20;
    config.slab_bytes = size_t{1} << 20;
    return config;
  }
};

TEST_F(SmallPoolTest, FullPoolWithEverythingLeased) {
  StoreOptions options;
  options.store_tail = false;
  std::vector<std::unique_ptr<DecodeReader>> readers;
  absl::Status status;
  for (uint32_t seed = 1; seed < 100 && status.ok(); ++seed) {
    const Prompt prompt(raw_spec_, 1024, seed);
    status = StorePrompt(channel_, spec_, prompt, options).status();
    if (!status.ok()) break;
    readers.push_back(std::make_unique<DecodeReader>(channel_, spec_));
    const auto match = readers.back()->Lookup(prompt.token_ids(), {});
    ASSERT_OK(match);
    ASSERT_EQ(match->blocks, 8);
  }
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, ::testing::Not("")));
  EXPECT_GT(readers.size(), 3u);
  EXPECT_EQ(server_->cache().Usage().pending_entries, 0);
  EXPECT_THAT(Store({Open(1024)}), StatusIs(absl::StatusCode::kResourceExhausted, ::testing::_))
      << "and it comes with a retry hint";
  ASSERT_OK(FetchAll(readers.front().get()));  // what is leased stays
  readers.clear();
  ASSERT_OK(StorePrompt(channel_, spec_, Prompt(raw_spec_, 1024, 1000), options));
}

class OneStoreTest : public BadInputTest {
 protected:
  OneStoreTest() : BadInputTest(Config()) {}
  static ServerConfig Config() {
    ServerConfig config = TestConfig();
    config.max_concurrent_stores = 1;
    config.max_concurrent_fetches = 1;
    config.stall_timeout = absl::Milliseconds(500);
    return config;
  }
};

TEST_F(OneStoreTest, TooManyStoresAreShedAndSilentOnesEnded) {
  grpc::ClientContext context;
  v1::StoreResponse response;
  auto silent = stub_->Store(&context, &response);
  ASSERT_TRUE(silent->Write(Open(128)));
  ASSERT_TRUE(Eventually([&] { return server_->cache().Usage().pending_entries > 0; }));
  EXPECT_THAT(Store({Open(128)}), StatusIs(absl::StatusCode::kResourceExhausted,
                                           HasSubstr("1 stores are under way; the limit is 1")));
  const grpc::Status ended = silent->Finish();
  EXPECT_EQ(ended.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(ended.error_message(), HasSubstr("sent nothing for 500ms"));
  ExpectNothingLeft();
}

class SlowReaderTest : public BadInputTest {
 protected:
  SlowReaderTest() : BadInputTest(Config()) {}
  static ServerConfig Config() {
    ServerConfig config = TestConfig();
    config.stall_timeout = absl::Milliseconds(700);
    return config;
  }
};

TEST_F(SlowReaderTest, ClientThatStopsReadingIsEndedAndHarmsNobody) {
  raw_spec_.policy = "bf16";
  raw_spec_.kv_heads = 8;
  raw_spec_.head_dim = 128;
  raw_spec_.layers = 4;
  const auto spec = Resolve(raw_spec_);
  const Prompt prompt(raw_spec_, 2048, 1);  // 32 MiB of pages, beyond every window and buffer
  StoreOptions options;
  options.store_tail = false;
  ASSERT_OK(StorePrompt(channel_, spec, prompt, options));
  DecodeReader holder(channel_, spec);
  const auto match = holder.Lookup(prompt.token_ids(), {});
  ASSERT_OK(match);

  grpc::ClientContext context;
  v1::FetchRequest request;
  request.set_lease_id(match->lease_id);
  auto stopped = stub_->Fetch(&context, request);
  v1::FetchResponse response;
  ASSERT_TRUE(stopped->Read(&response));

  DecodeReader other(ConnectTo(*server_, "default", "other"), spec);
  const absl::Time start = absl::Now();
  int fetches = 0;
  while (absl::Now() < start + absl::Milliseconds(1500)) {
    ASSERT_OK(other.Lookup(prompt.token_ids(), {}));
    ASSERT_OK(other.Fetch({}, [](FetchedLayer) { return absl::OkStatus(); }));
    ++fetches;
  }
  EXPECT_GT(fetches, 3);
  while (stopped->Read(&response)) {
  }
  EXPECT_EQ(stopped->Finish().error_code(), grpc::StatusCode::CANCELLED);
  ASSERT_OK(FetchAll(&holder));  // its lease is still good
}

}  // namespace
}  // namespace turbokv::testing
