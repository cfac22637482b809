#include "client/decode_reader.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/status_macros.h"
#include "client/shared_fetch.h"
#include "client/wire/bulk_message.h"
#include "client/wire/call_context.h"
#include "client/wire/fetch_call.h"
#include "client/wire/layer_assembler.h"
#include "client/wire/layer_buffers.h"
#include "turbokv/v1/cache.grpc.pb.h"

namespace turbokv {
namespace {

constexpr absl::Duration kLeaseCallTimeout = absl::Seconds(10);

struct FetchScope {
  int first_layer = 0;
  int end_layer = 0;
  LayerExtent extent;
};

// Resolves the zeros of `options` against what the match holds.
absl::StatusOr<FetchScope> ScopeOf(const FetchOptions& options, const Match& match, int layers) {
  const auto bad = [](absl::string_view field, int64_t value, int64_t limit) {
    return absl::InvalidArgumentError(absl::StrCat(field, " is ", value, "; expected 0..", limit));
  };
  if (options.first_layer < 0 || options.first_layer >= layers) {
    return bad("first_layer", options.first_layer, layers - 1);
  }
  const int following_layers = layers - options.first_layer;
  if (options.layer_count < 0 || options.layer_count > following_layers) {
    return bad("layer_count", options.layer_count, following_layers);
  }
  if (options.first_block < 0 || options.first_block > match.blocks) {
    return bad("first_block", options.first_block, match.blocks);
  }
  const int64_t following_blocks = match.blocks - options.first_block;
  if (options.block_count < 0 || options.block_count > following_blocks) {
    return bad("block_count", options.block_count, following_blocks);
  }
  FetchScope scope;
  scope.first_layer = options.first_layer;
  scope.end_layer =
      options.first_layer + (options.layer_count == 0 ? following_layers : options.layer_count);
  scope.extent.first_block = options.first_block;
  scope.extent.blocks = options.block_count == 0 ? following_blocks : options.block_count;
  scope.extent.tail_tokens = options.include_tail && match.tail_found ? match.tail_tokens : 0;
  return scope;
}

}  // namespace

class DecodeReader::Impl {
 public:
  Impl(std::shared_ptr<CacheChannel> channel, std::shared_ptr<const ResolvedSpec> spec)
      : channel_(std::move(channel)),
        spec_(std::move(spec)),
        stub_(v1::CacheService::NewStub(channel_->grpc_channel())),
        buffers_(std::make_shared<LayerBuffers>()) {}

  ~Impl() { Release().IgnoreError(); }

  absl::StatusOr<Match> Lookup(absl::Span<const int32_t> token_ids, const LookupOptions& options) {
    Release().IgnoreError();  // an old lease that is gone already is no concern of this lookup
    const std::vector<Digest> keys = BlockKeys(spec_->fingerprint, options.salt, token_ids);
    v1::LookupRequest request;
    request.set_spec_fingerprint(spec_->fingerprint.data(), spec_->fingerprint.size());
    request.set_block_keys(keys.data(), keys.size() * sizeof(Digest));
    if (options.want_tail) {
      const Digest tail_key = TailKey(spec_->fingerprint, options.salt, keys, token_ids);
      request.set_tail_key(tail_key.data(), tail_key.size());
    }
    request.set_lease_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(options.lease)));
    if (!options.device_uuid.empty()) {
      request.set_memory(v1::MEMORY_KIND_DEVICE);
      request.set_device_uuid(options.device_uuid);
      request.set_share_session(options.share_session);
    }

    const absl::Time called = absl::Now();
    std::shared_ptr<SharedMemory> memory =
        options.device_uuid.empty() ? channel_->shared_memory() : nullptr;
    absl::StatusOr<v1::LookupResponse> response = CallLookup(request, memory.get(), options);
    if (memory != nullptr && !response.ok() && SessionIsGone(response.status())) {
      channel_->DropSharedMemory(memory.get());
      memory = nullptr;
      response = CallLookup(request, nullptr, options);
    }
    TURBOKV_RETURN_IF_ERROR(response.status());
    lease_end_ = called + absl::Milliseconds(response->lease_ms());
    return Adopt(*response, keys.size(), std::move(memory));
  }

  absl::Status Fetch(const FetchOptions& options,
                     const std::function<absl::Status(FetchedLayer)>& on_layer) {
    TURBOKV_RETURN_IF_ERROR(RequireLease());
    TURBOKV_ASSIGN_OR_RETURN(const FetchScope scope, ScopeOf(options, match_, spec_->spec.layers));
    absl::StatusOr<SharedFetch> shared = OpenShared(scope);
    last_road_ = shared.ok() ? Road::kShm : Road::kGrpc;
    if (shared.ok()) return FetchShared(scope, options, &*shared, on_layer);
    if (memory_ != nullptr) {
      LogWarning("pages are fetched by gRPC instead of in place",
                 {{"reason", shared.status().message()}});
    }
    return FetchStreamed(scope, options, on_layer);
  }

  absl::Status FetchStreamed(const FetchScope& scope, const FetchOptions& options,
                             const std::function<absl::Status(FetchedLayer)>& on_layer) {
    v1::FetchRequest request;
    request.set_lease_id(match_.lease_id);
    request.set_first_layer(scope.first_layer);
    request.set_layer_count(scope.end_layer - scope.first_layer);
    request.set_first_block(scope.extent.first_block);
    request.set_block_count(scope.extent.blocks);
    request.set_include_tail(scope.extent.tail_tokens > 0);
    request.set_chunk_bytes(static_cast<uint32_t>(options.chunk_bytes));
    FetchCall call(channel_, options.timeout, request);
    for (int layer = scope.first_layer; layer < scope.end_layer; ++layer) {
      LayerAssembler assembler(spec_, scope.extent, layer, buffers_.get());
      TURBOKV_RETURN_IF_ERROR(ReceiveLayer(layer, &call, &assembler));
      TURBOKV_RETURN_IF_ERROR(on_layer(assembler.Take()));
    }
    return call.Finish();
  }

  absl::Status Renew(absl::Duration lease) {
    TURBOKV_RETURN_IF_ERROR(RequireLease());
    v1::RenewRequest request;
    request.set_lease_id(match_.lease_id);
    request.set_lease_ms(static_cast<uint32_t>(absl::ToInt64Milliseconds(lease)));
    const absl::Time called = absl::Now();
    grpc::ClientContext context;
    PrepareCall(*channel_, kLeaseCallTimeout, &context);
    v1::RenewResponse response;
    const grpc::Status status = stub_->Renew(&context, request, &response);
    if (!status.ok()) return CallStatus(*channel_, "renew", status);
    match_.lease = absl::Milliseconds(response.lease_ms());
    lease_end_ = called + match_.lease;
    return absl::OkStatus();
  }

  absl::Status Release() {
    if (match_.lease_id == 0) return absl::OkStatus();
    v1::ReleaseRequest request;
    request.set_lease_id(match_.lease_id);
    match_ = Match();
    memory_ = nullptr;
    grpc::ClientContext context;
    PrepareCall(*channel_, kLeaseCallTimeout, &context);
    v1::ReleaseResponse response;
    return CallStatus(*channel_, "release", stub_->Release(&context, request, &response));
  }

  int64_t fetched_bytes() const { return fetched_bytes_; }
  Road last_road() const { return last_road_; }

 private:
  // What a server says that knows the session no more, or shares nothing any more.
  static bool SessionIsGone(const absl::Status& status) {
    return absl::IsPermissionDenied(status) || absl::IsFailedPrecondition(status);
  }

  absl::StatusOr<v1::LookupResponse> CallLookup(v1::LookupRequest request,
                                                const SharedMemory* memory,
                                                const LookupOptions& options) {
    if (memory != nullptr) {
      request.set_share_session(memory->session_id());
      request.set_memory(v1::MEMORY_KIND_HOST);
    }
    grpc::ClientContext context;
    PrepareCall(*channel_, options.timeout, &context);
    v1::LookupResponse response;
    const grpc::Status status = stub_->Lookup(&context, request, &response);
    if (!status.ok()) return CallStatus(*channel_, "lookup", status);
    return response;
  }

  absl::StatusOr<SharedFetch> OpenShared(const FetchScope& scope) const {
    if (memory_ == nullptr) return absl::FailedPreconditionError("no memory is shared");
    std::vector<SharedPlace> places(
        match_.places.begin() + scope.extent.first_block,
        match_.places.begin() + scope.extent.first_block + scope.extent.blocks);
    if (scope.extent.tail_tokens > 0) places.push_back(match_.places.back());
    return SharedFetch::Open(memory_, match_.lease_id, spec_, scope.extent, places);
  }

  absl::Status FetchShared(FetchScope scope, const FetchOptions& options, SharedFetch* shared,
                           const std::function<absl::Status(FetchedLayer)>& on_layer) {
    for (int layer = scope.first_layer; layer < scope.end_layer; ++layer) {
      // Mapped memory stays readable; that it is still what was leased, only the lease says.
      if (absl::Now() >= lease_end_) {
        return absl::NotFoundError(absl::StrCat("the lease has ended before layer ", layer));
      }
      const absl::StatusOr<FetchedLayer> read = shared->Layer(layer);
      if (absl::IsDataLoss(read.status())) {
        // The server has to see the damage, to count and drop the block: it does on this way.
        scope.first_layer = layer;
        last_road_ = Road::kGrpc;
        return FetchStreamed(scope, options, on_layer);
      }
      TURBOKV_RETURN_IF_ERROR(read.status());
      const FetchedLayer& fetched = *read;
      fetched_bytes_ += static_cast<int64_t>(shared->layer_bytes());
      TURBOKV_RETURN_IF_ERROR(on_layer(fetched));
      TURBOKV_RETURN_IF_ERROR(shared->CheckUnchanged(fetched));
    }
    return absl::OkStatus();
  }

  // Places of every block, then of the tail; none: the server told none, or not as many.
  static std::vector<SharedPlace> PlacesOf(const v1::LookupResponse& response) {
    const v1::Places& places = response.places();
    const auto count =
        static_cast<int>(response.matched_blocks()) + (response.tail_found() ? 1 : 0);
    if (places.pools_size() != count || places.offsets_size() != count ||
        places.generations_size() != count) {
      return {};
    }
    std::vector<SharedPlace> result;
    for (int i = 0; i < count; ++i) {
      result.push_back({places.pools(i), places.offsets(i), places.generations(i)});
    }
    return result;
  }

  absl::Status RequireLease() const {
    if (match_.lease_id != 0) return absl::OkStatus();
    return absl::FailedPreconditionError("no lease: Lookup has found nothing, or Release came");
  }

  absl::StatusOr<Match> Adopt(const v1::LookupResponse& response, size_t asked_blocks,
                              std::shared_ptr<SharedMemory> memory) {
    const bool sane = response.matched_blocks() <= asked_blocks &&
                      response.tail_tokens() < 2 * kPageTokens &&
                      (response.lease_id() == 0 ||
                       response.layers() == static_cast<uint32_t>(spec_->spec.layers));
    if (!sane) {
      return absl::InternalError(absl::StrCat(
          "lookup: the server claims ", response.matched_blocks(), " of ", asked_blocks,
          " blocks, ", response.tail_tokens(), " tail tokens and ", response.layers(), " layers"));
    }
    match_.blocks = static_cast<int64_t>(response.matched_blocks());
    match_.tail_found = response.tail_found();
    match_.tail_tokens = static_cast<int>(response.tail_tokens());
    match_.lease_id = response.lease_id();
    match_.lease = absl::Milliseconds(response.lease_ms());
    match_.places = PlacesOf(response);
    memory_ = match_.places.empty() ? nullptr : std::move(memory);
    return match_;
  }

  absl::Status ReceiveLayer(int layer, FetchCall* call, LayerAssembler* assembler) {
    grpc::ByteBuffer message;
    v1::FetchResponse fields;
    while (!assembler->complete()) {
      if (!call->Read(&message)) {
        TURBOKV_RETURN_IF_ERROR(call->Finish());
        return absl::InternalError(absl::StrCat("fetch: the server ended inside layer ", layer));
      }
      fields.Clear();
      TURBOKV_ASSIGN_OR_RETURN(const BulkPayload payload, ParseBulkMessage(message, &fields));
      if (fields.layer() != static_cast<uint32_t>(layer)) {
        return absl::InternalError(
            absl::StrCat("fetch: the server sent layer ", fields.layer(), ", expected ", layer));
      }
      TURBOKV_RETURN_IF_ERROR(assembler->Append(fields.offset(), fields.layer_bytes(),
                                                payload.pieces(), payload.size_bytes()));
      fetched_bytes_ += static_cast<int64_t>(payload.size_bytes());
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<CacheChannel> channel_;
  const std::shared_ptr<const ResolvedSpec> spec_;
  const std::unique_ptr<v1::CacheService::Stub> stub_;
  const std::shared_ptr<LayerBuffers> buffers_;
  Match match_;
  std::shared_ptr<SharedMemory> memory_;  // null: pages are fetched by gRPC
  absl::Time lease_end_;                  // at the earliest
  int64_t fetched_bytes_ = 0;
  Road last_road_ = Road::kGrpc;
};

DecodeReader::DecodeReader(std::shared_ptr<CacheChannel> channel,
                           std::shared_ptr<const ResolvedSpec> spec)
    : impl_(std::make_unique<Impl>(std::move(channel), std::move(spec))) {}
DecodeReader::~DecodeReader() = default;

absl::StatusOr<Match> DecodeReader::Lookup(absl::Span<const int32_t> token_ids,
                                           const LookupOptions& options) {
  return impl_->Lookup(token_ids, options);
}

absl::Status DecodeReader::Fetch(const FetchOptions& options,
                                 const std::function<absl::Status(FetchedLayer)>& on_layer) {
  return impl_->Fetch(options, on_layer);
}

absl::Status DecodeReader::Renew(absl::Duration lease) { return impl_->Renew(lease); }
absl::Status DecodeReader::Release() { return impl_->Release(); }
int64_t DecodeReader::fetched_bytes() const { return impl_->fetched_bytes(); }
Road DecodeReader::last_road() const { return impl_->last_road(); }

}  // namespace turbokv
