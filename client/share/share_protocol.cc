#include "client/share/share_protocol.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "client/wire/identity.h"

namespace turbokv {
namespace {

static_assert(std::endian::native == std::endian::little, "messages are copied as they lie");

enum class MessageType : uint16_t {
  kHello = 1,
  kHelloReply = 2,
  kMapSlab = 3,
  kMapSlabReply = 4,
  kOpenStaging = 5,
  kOpenStagingReply = 6,
};

// Layouts. All fields are naturally aligned and there is no padding: the sizes below prove it.
struct Header {
  uint32_t magic;
  uint16_t version;
  uint16_t type;
};

template <size_t N>
struct Text {
  uint32_t bytes;
  char text[N];  // what follows the text is zero
};

using Name = Text<kMaxIdentityNameBytes>;

struct Outcome {
  uint32_t code;  // absl::StatusCode
  Text<kMaxShareReasonBytes> reason;
};

struct HelloMessage {
  static constexpr MessageType kType = MessageType::kHello;
  Header header;
  Name tenant;
  Name client;
};

struct HelloReplyMessage {
  static constexpr MessageType kType = MessageType::kHelloReply;
  Header header;
  Outcome outcome;
  uint64_t session_id;
};

struct MapSlabMessage {
  static constexpr MessageType kType = MessageType::kMapSlab;
  Header header;
  uint64_t lease_id;
  uint32_t pool;
  uint32_t slab;
};

struct MapSlabReplyMessage {
  static constexpr MessageType kType = MessageType::kMapSlabReply;
  Header header;
  Outcome outcome;
  uint64_t slab_bytes;
  uint64_t generation;
  uint32_t slab_count;
  uint32_t kind;  // ShareKind
  uint8_t ipc_handle[kIpcHandleBytes];
};

struct OpenStagingMessage {
  static constexpr MessageType kType = MessageType::kOpenStaging;
  Header header;
  uint64_t slot_bytes;
  uint32_t slots;
  uint32_t zero;
};

struct OpenStagingReplyMessage {
  static constexpr MessageType kType = MessageType::kOpenStagingReply;
  Header header;
  Outcome outcome;
  uint64_t slot_bytes;
  uint32_t slots;
  uint32_t zero;
};

static_assert(sizeof(HelloMessage) == 144);
static_assert(sizeof(HelloReplyMessage) == 272);
static_assert(sizeof(MapSlabMessage) == 24);
static_assert(sizeof(MapSlabReplyMessage) == kMaxShareMessageBytes);
static_assert(sizeof(OpenStagingMessage) == 24);
static_assert(sizeof(OpenStagingReplyMessage) == 280);

template <typename Message>
Message NewMessage() {
  Message message{};
  message.header = {kShareMagic, kShareVersion, static_cast<uint16_t>(Message::kType)};
  return message;
}

template <typename Message>
std::vector<uint8_t> ToBytes(const Message& message) {
  static_assert(std::has_unique_object_representations_v<Message>);
  std::vector<uint8_t> bytes(sizeof(message));
  std::memcpy(bytes.data(), &message, sizeof(message));
  return bytes;
}

absl::StatusOr<Header> DecodeHeader(absl::Span<const uint8_t> bytes) {
  Header header;
  if (bytes.size() < sizeof(header)) {
    return absl::InvalidArgumentError(absl::StrCat("a message of ", bytes.size(),
                                                   " bytes: shorter than its header of ",
                                                   sizeof(header), " bytes"));
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != kShareMagic) {
    return absl::InvalidArgumentError(absl::StrCat("a message that begins with 0x",
                                                   absl::Hex(header.magic), " instead of 0x",
                                                   absl::Hex(kShareMagic)));
  }
  if (header.version != kShareVersion) {
    return absl::UnimplementedError(
        absl::StrCat("protocol version ", header.version, ": this build speaks ", kShareVersion));
  }
  return header;
}

template <typename Message>
absl::StatusOr<Message> FromBytes(absl::Span<const uint8_t> bytes) {
  TURBOKV_ASSIGN_OR_RETURN(const Header header, DecodeHeader(bytes));
  if (header.type != static_cast<uint16_t>(Message::kType)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a message of type ", header.type, " instead of ", static_cast<int>(Message::kType)));
  }
  if (bytes.size() != sizeof(Message)) {
    return absl::InvalidArgumentError(absl::StrCat("a message of type ", header.type, " with ",
                                                   bytes.size(), " bytes instead of ",
                                                   sizeof(Message)));
  }
  Message message;
  std::memcpy(&message, bytes.data(), sizeof(message));
  return message;
}

template <size_t N>
void SetText(absl::string_view value, Text<N>* text) {
  text->bytes = static_cast<uint32_t>(std::min(value.size(), N));
  std::copy_n(value.data(), text->bytes, text->text);
}

template <size_t N>
absl::StatusOr<absl::string_view> GetText(const Text<N>& text) {
  if (text.bytes > N) {
    return absl::InvalidArgumentError(
        absl::StrCat("a text of ", text.bytes, " bytes: more than ", N));
  }
  return absl::string_view(text.text, text.bytes);
}

void SetOutcome(const absl::Status& status, Outcome* outcome) {
  outcome->code = static_cast<uint32_t>(status.code());
  SetText(absl::string_view(status.message().data(), status.message().size()), &outcome->reason);
}

absl::Status Internal(const absl::Status& status) {
  return absl::InternalError(absl::StrCat("the server sent ", status.message()));
}

// Checks message and outcome of a reply.
template <typename Message>
absl::StatusOr<Message> FromReply(absl::Span<const uint8_t> bytes) {
  absl::StatusOr<Message> message = FromBytes<Message>(bytes);
  if (!message.ok()) return Internal(message.status());
  const Outcome& outcome = message->outcome;
  const absl::StatusOr<absl::string_view> reason = GetText(outcome.reason);
  if (!reason.ok()) return Internal(reason.status());
  if (outcome.code == 0) return message;
  // INTERNAL tells our caller that the protocol was broken, so it is not the server's to say.
  const bool known = outcome.code <= static_cast<uint32_t>(absl::StatusCode::kUnauthenticated) &&
                     outcome.code != static_cast<uint32_t>(absl::StatusCode::kInternal);
  std::string printable(*reason);
  for (char& c : printable) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return absl::Status(
      known ? static_cast<absl::StatusCode>(outcome.code) : absl::StatusCode::kUnknown, printable);
}

absl::StatusOr<ShareRequest> DecodeHello(absl::Span<const uint8_t> bytes) {
  TURBOKV_ASSIGN_OR_RETURN(const HelloMessage message, FromBytes<HelloMessage>(bytes));
  TURBOKV_ASSIGN_OR_RETURN(const absl::string_view tenant, GetText(message.tenant));
  TURBOKV_ASSIGN_OR_RETURN(const absl::string_view client, GetText(message.client));
  TURBOKV_RETURN_IF_ERROR(CheckIdentityName("tenant", tenant));
  TURBOKV_RETURN_IF_ERROR(CheckIdentityName("client", client));
  return ShareIdentity{std::string(tenant), std::string(client)};
}

absl::StatusOr<ShareRequest> DecodeMapSlab(absl::Span<const uint8_t> bytes) {
  TURBOKV_ASSIGN_OR_RETURN(const MapSlabMessage message, FromBytes<MapSlabMessage>(bytes));
  return MapSlabRequest{message.lease_id, message.pool, message.slab};
}

absl::StatusOr<ShareRequest> DecodeOpenStaging(absl::Span<const uint8_t> bytes) {
  TURBOKV_ASSIGN_OR_RETURN(const OpenStagingMessage message, FromBytes<OpenStagingMessage>(bytes));
  if (message.zero != 0) return absl::InvalidArgumentError("a reserved field that is not zero");
  return OpenStagingRequest{{message.slot_bytes, message.slots}};
}

std::vector<uint8_t> Encode(const ShareIdentity& identity) {
  auto message = NewMessage<HelloMessage>();
  SetText(identity.tenant, &message.tenant);
  SetText(identity.client, &message.client);
  return ToBytes(message);
}

std::vector<uint8_t> Encode(const MapSlabRequest& request) {
  auto message = NewMessage<MapSlabMessage>();
  message.lease_id = request.lease_id;
  message.pool = request.pool;
  message.slab = request.slab;
  return ToBytes(message);
}

std::vector<uint8_t> Encode(const OpenStagingRequest& request) {
  auto message = NewMessage<OpenStagingMessage>();
  message.slot_bytes = request.geometry.slot_bytes;
  message.slots = request.geometry.slots;
  return ToBytes(message);
}

}  // namespace

std::vector<uint8_t> EncodeShareRequest(const ShareRequest& request) {
  return std::visit([](const auto& message) { return Encode(message); }, request);
}

absl::StatusOr<ShareRequest> DecodeShareRequest(absl::Span<const uint8_t> message) {
  TURBOKV_ASSIGN_OR_RETURN(const Header header, DecodeHeader(message));
  switch (static_cast<MessageType>(header.type)) {
    case MessageType::kHello:
      return DecodeHello(message);
    case MessageType::kMapSlab:
      return DecodeMapSlab(message);
    case MessageType::kOpenStaging:
      return DecodeOpenStaging(message);
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("a message of type ", header.type, ", which is no request"));
  }
}

std::vector<uint8_t> EncodeHelloReply(const absl::StatusOr<uint64_t>& session_id) {
  auto message = NewMessage<HelloReplyMessage>();
  SetOutcome(session_id.status(), &message.outcome);
  if (session_id.ok()) message.session_id = *session_id;
  return ToBytes(message);
}

absl::StatusOr<uint64_t> DecodeHelloReply(absl::Span<const uint8_t> message) {
  TURBOKV_ASSIGN_OR_RETURN(const auto reply, FromReply<HelloReplyMessage>(message));
  return reply.session_id;
}

std::vector<uint8_t> EncodeMapSlabReply(const absl::StatusOr<PlacedSlab>& slab) {
  auto message = NewMessage<MapSlabReplyMessage>();
  SetOutcome(slab.status(), &message.outcome);
  if (slab.ok()) {
    message.slab_bytes = slab->geometry.slab_bytes;
    message.slab_count = slab->geometry.slab_count;
    message.generation = slab->generation;
    message.kind = static_cast<uint32_t>(slab->memory.kind);
    std::memcpy(message.ipc_handle, slab->memory.ipc_handle, kIpcHandleBytes);
  }
  return ToBytes(message);
}

absl::StatusOr<PlacedSlab> DecodeMapSlabReply(absl::Span<const uint8_t> message) {
  TURBOKV_ASSIGN_OR_RETURN(const auto reply, FromReply<MapSlabReplyMessage>(message));
  if (reply.kind == static_cast<uint32_t>(ShareKind::kNone) ||
      reply.kind > static_cast<uint32_t>(ShareKind::kFakeFd)) {
    return absl::InternalError(
        absl::StrCat("the server sent memory of kind ", reply.kind, ", which cannot be mapped"));
  }
  PlacedSlab slab;
  slab.memory.kind = static_cast<ShareKind>(reply.kind);
  std::memcpy(slab.memory.ipc_handle, reply.ipc_handle, kIpcHandleBytes);
  slab.geometry = {reply.slab_bytes, reply.slab_count};
  slab.generation = reply.generation;
  return slab;
}

std::vector<uint8_t> EncodeOpenStagingReply(const absl::StatusOr<StagingGeometry>& geometry) {
  auto message = NewMessage<OpenStagingReplyMessage>();
  SetOutcome(geometry.status(), &message.outcome);
  if (geometry.ok()) {
    message.slot_bytes = geometry->slot_bytes;
    message.slots = geometry->slots;
  }
  return ToBytes(message);
}

absl::StatusOr<StagingGeometry> DecodeOpenStagingReply(absl::Span<const uint8_t> message) {
  TURBOKV_ASSIGN_OR_RETURN(const auto reply, FromReply<OpenStagingReplyMessage>(message));
  return StagingGeometry{reply.slot_bytes, reply.slots};
}

bool HasDescriptor(ShareKind kind) {
  return kind == ShareKind::kMemfd || kind == ShareKind::kCudaFd || kind == ShareKind::kFakeFd;
}

}  // namespace turbokv
