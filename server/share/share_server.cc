#include "server/share/share_server.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/logging.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "client/share/fd_socket.h"
#include "client/share/share_protocol.h"
#include "client/share/unique_fd.h"
#include "server/share/byte_budget.h"
#include "server/share/log_limiter.h"

namespace turbokv {
namespace {

// What epoll says an event is about: these, or a connection's number.
constexpr uint64_t kListener = 0;
constexpr uint64_t kStop = 1;
constexpr uint64_t kFirstConnection = 2;
constexpr uint64_t kProcess = uint64_t{1} << 63;  // with a number: that connection's process

constexpr int kMaxEvents = 64;
constexpr int kMaxAcceptsAtOnce = 16;
constexpr uint32_t kMaxSessionsLimit = 65536;
// How long no connections are taken after the process ran out of descriptors.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(200);
// Of what clients can cause by connecting and closing as fast as they can.
constexpr uint32_t kLogLinesPerSecond = 20;

struct Connection {
  uint64_t number = 0;
  FdSocket socket;
  UniqueFd process;       // may be empty
  ShareSessionInfo info;  // session_id is 0 before the greeting
  absl::Time hello_deadline = absl::InfiniteFuture();
  bool has_staging = false;
};

// Keeps the budget charged for as long as anybody reads the region.
struct ChargedStaging {
  ByteBudget::Grant grant;
  std::unique_ptr<StagingRegion> region;
};

absl::StatusOr<uint64_t> RandomSessionId() {
  uint64_t id = 0;
  while (id == 0) {
    const ssize_t got = getrandom(&id, sizeof(id), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got != sizeof(id)) return absl::InternalError("the system gives no random numbers");
  }
  return id;
}

absl::Status CheckOptions(const ShareServerOptions& options) {
  if (options.max_sessions < 1 || options.max_sessions > kMaxSessionsLimit) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_sessions ", options.max_sessions, ": must be 1..", kMaxSessionsLimit));
  }
  if (options.hello_timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "hello_timeout ", absl::FormatDuration(options.hello_timeout), ": must be more than 0"));
  }
  return absl::OkStatus();
}

}  // namespace

class ShareServer::Impl {
 public:
  Impl(const ShareServerOptions& options, ShareHost* host, FdListener listener, UniqueFd epoll,
       UniqueFd stop)
      : options_(options),
        host_(host),
        listener_(std::move(listener)),
        epoll_(std::move(epoll)),
        stop_(std::move(stop)),
        staging_budget_(std::make_shared<ByteBudget>(options.max_staging_bytes)) {}

  ~Impl() {
    if (!thread_.joinable()) return;
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof(one));
    thread_.join();
  }

  absl::Status Start() {
    TURBOKV_RETURN_IF_ERROR(Watch(listener_.fd(), EPOLLIN, kListener));
    TURBOKV_RETURN_IF_ERROR(Watch(stop_.get(), EPOLLIN, kStop));
    thread_ = std::thread([this] { Run(); });
    return absl::OkStatus();
  }

  std::shared_ptr<StagingRegion> FindStaging(uint64_t session_id) const {
    MutexLock lock(&mutex_);
    const auto found = staging_.find(session_id);
    return found == staging_.end() ? nullptr : found->second;
  }

  ShareServerStats stats() const {
    return {.sessions = sessions_,
            .staging_bytes = staging_budget_->used_bytes(),
            .opened_sessions = opened_sessions_,
            .refused_sessions = refused_sessions_,
            .protocol_errors = protocol_errors_,
            .mapped_slabs = mapped_slabs_};
  }

 private:
  absl::Status Watch(int fd, uint32_t events, uint64_t what) {
    epoll_event event{};
    event.events = events;
    event.data.u64 = what;
    if (epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return absl::OkStatus();
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot watch a socket: ", std::strerror(errno)));
  }

  // The thread.
  void Run() {
    bool stopping = false;
    while (!stopping) {
      epoll_event events[kMaxEvents];
      const int count = epoll_wait(epoll_.get(), events, kMaxEvents, TimeoutMs());
      for (int i = 0; i < count; ++i) {
        const uint64_t what = events[i].data.u64;
        if (what == kStop) {
          stopping = true;
        } else if (what == kListener) {
          AcceptConnections();
        } else if ((what & kProcess) != 0) {
          Close(what & ~kProcess);
        } else {
          Serve(what, events[i].events);
        }
      }
      HandleTimers();
    }
    while (!connections_.empty()) Close(connections_.begin()->first);
  }

  // Until the next thing that happens by itself; forever when there is none.
  int TimeoutMs() const {
    absl::Time next = accept_again_;
    // The oldest is the first to run out: all have equally long.
    if (!greeting_.empty()) {
      next = std::min(next, connections_.at(greeting_.front()).hello_deadline);
    }
    if (next == absl::InfiniteFuture()) return -1;
    const absl::Duration left = std::max(absl::ZeroDuration(), next - absl::Now());
    return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 3'600'000));
  }

  void HandleTimers() {
    const absl::Time now = absl::Now();
    if (now >= accept_again_) {
      accept_again_ = absl::InfiniteFuture();
      if (!Watch(listener_.fd(), EPOLLIN, kListener).ok()) accept_again_ = now + kAcceptPause;
    }
    while (!greeting_.empty()) {
      const Connection& oldest = connections_.at(greeting_.front());
      if (now < oldest.hello_deadline) break;
      Reject(oldest, absl::DeadlineExceededError("no greeting in time"));
    }
  }

  void AcceptConnections() {
    for (int i = 0; i < kMaxAcceptsAtOnce; ++i) {
      absl::StatusOr<FdSocket> socket = listener_.Accept();
      if (socket.status().code() == absl::StatusCode::kResourceExhausted) {
        // The connection stays in the queue, and would wake this thread again and again.
        epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener_.fd(), nullptr);
        accept_again_ = absl::Now() + kAcceptPause;
        Complain("cannot accept a connection", {{"error", socket.status().message()}});
        return;
      }
      if (!socket.ok()) return;
      Open(*std::move(socket));
    }
  }

  void Open(FdSocket socket) {
    const absl::StatusOr<PeerCredentials> peer = socket.Peer();
    if (!peer.ok()) return;
    if (connections_.size() >= options_.max_sessions) {
      ++refused_sessions_;
      Complain("share session refused: there are too many",
               {{"pid", peer->pid}, {"uid", peer->uid}, {"limit", options_.max_sessions}});
      const auto reply = EncodeHelloReply(absl::ResourceExhaustedError(
          absl::StrCat("the server has its ", options_.max_sessions, " sessions")));
      [[maybe_unused]] const absl::Status sent = socket.Send(reply, -1, absl::InfinitePast());
      return;
    }
    const uint64_t number = next_number_++;
    if (!Watch(socket.fd(), EPOLLIN | EPOLLRDHUP, number).ok()) return;
    Connection& connection = connections_[number];
    connection.number = number;
    // A forked child that inherits the socket keeps it open when the process dies.
    connection.process = socket.PeerProcess();
    if (connection.process && !Watch(connection.process.get(), EPOLLIN, number | kProcess).ok()) {
      connection.process = UniqueFd();
    }
    connection.socket = std::move(socket);
    connection.info.peer = *peer;
    connection.hello_deadline = absl::Now() + options_.hello_timeout;
    greeting_.push_back(number);
    sessions_ = connections_.size();
  }

  // One message at most, so that no client keeps the others waiting.
  void Serve(uint64_t number, uint32_t events) {
    const auto found = connections_.find(number);
    if (found == connections_.end()) return;  // closed by what came before it
    Connection& connection = found->second;
    if ((events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0) {
      Close(number);
      return;
    }
    uint8_t buffer[kMaxShareMessageBytes];
    const absl::StatusOr<size_t> bytes =
        connection.socket.Receive(absl::MakeSpan(buffer), absl::InfinitePast());
    absl::Status status = bytes.status();
    if (status.ok()) status = Handle(&connection, absl::MakeConstSpan(buffer, *bytes));
    if (status.ok() || status.code() == absl::StatusCode::kDeadlineExceeded) return;
    if (status.code() == absl::StatusCode::kUnavailable) {
      Close(number);
    } else {
      Reject(connection, status);
    }
  }

  // An error is the end of the connection: UNAVAILABLE when the client has gone, else it broke the
  // protocol.
  absl::Status Handle(Connection* connection, absl::Span<const uint8_t> message) {
    // A client that asks on and on without taking the replies would pile up descriptors in flight,
    // of which the kernel has a limit for all sessions together.
    if (connection->socket.HasUnreceived()) {
      return absl::InvalidArgumentError("a request before the reply to the last was received");
    }
    absl::StatusOr<ShareRequest> request = DecodeShareRequest(message);
    const bool greeted = connection->info.session_id != 0;
    if (request.status().code() == absl::StatusCode::kUnimplemented && !greeted) {
      TURBOKV_RETURN_IF_ERROR(Reply(connection, EncodeHelloReply(request.status())));
    }
    TURBOKV_RETURN_IF_ERROR(request.status());
    if (std::holds_alternative<ShareIdentity>(*request) == greeted) {
      return absl::InvalidArgumentError(greeted ? "a second greeting"
                                                : "a request before the greeting");
    }
    if (const auto* identity = std::get_if<ShareIdentity>(&*request)) {
      return Greet(connection, *identity);
    }
    if (const auto* map = std::get_if<MapSlabRequest>(&*request)) return Map(connection, *map);
    return OpenStaging(connection, std::get<OpenStagingRequest>(*request));
  }

  absl::Status Reply(Connection* connection, absl::Span<const uint8_t> message, int fd = -1) {
    // The client has taken everything before this, so there is room.
    const absl::Status sent = connection->socket.Send(message, fd, absl::InfinitePast());
    return sent.ok() ? sent : absl::UnavailableError(sent.message());
  }

  absl::Status Greet(Connection* connection, const ShareIdentity& identity) {
    const absl::StatusOr<uint64_t> session_id = RandomSessionId();
    if (!session_id.ok()) return Reply(connection, EncodeHelloReply(session_id));
    ShareSessionInfo& info = connection->info;
    info.identity = identity;
    info.session_id = *session_id;
    greeting_.remove(connection->number);
    ++opened_sessions_;
    // Without the session's id: whoever knows it can speak for the session.
    LogOne(LogLevel::kInfo, "share session opened",
           {{"session", connection->number},
            {"tenant", identity.tenant},
            {"client", identity.client},
            {"pid", info.peer.pid},
            {"uid", info.peer.uid},
            {"gid", info.peer.gid}});
    host_->SessionOpened(info);
    return Reply(connection, EncodeHelloReply(session_id));
  }

  absl::Status Map(Connection* connection, const MapSlabRequest& request) {
    const absl::StatusOr<PlacedSlab> slab = host_->MapSlab(connection->info, request);
    const UniqueFd fd(slab.ok() ? slab->memory.fd : -1);
    if (slab.ok() && (slab->memory.kind == ShareKind::kNone ||
                      HasDescriptor(slab->memory.kind) != static_cast<bool>(fd))) {
      return Reply(connection, EncodeMapSlabReply(absl::UnimplementedError(
                                   absl::StrCat("slab ", request.slab, " of pool ", request.pool,
                                                ": this memory cannot be shared"))));
    }
    if (slab.ok()) ++mapped_slabs_;
    return Reply(connection, EncodeMapSlabReply(slab), fd.get());
  }

  absl::Status OpenStaging(Connection* connection, const OpenStagingRequest& request) {
    const absl::StatusOr<std::shared_ptr<StagingRegion>> region =
        MakeStaging(*connection, request.geometry);
    if (!region.ok()) return Reply(connection, EncodeOpenStagingReply(region.status()));
    connection->has_staging = true;
    {
      MutexLock lock(&mutex_);
      staging_[connection->info.session_id] = *region;
    }
    return Reply(connection, EncodeOpenStagingReply(request.geometry), (*region)->fd());
  }

  absl::StatusOr<std::shared_ptr<StagingRegion>> MakeStaging(const Connection& connection,
                                                             const StagingGeometry& geometry) {
    TURBOKV_RETURN_IF_ERROR(CheckStagingGeometry(geometry));
    if (connection.has_staging) return absl::AlreadyExistsError("this session has its staging");
    if (geometry.region_bytes() > options_.max_session_staging_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("staging of ", geometry.region_bytes(),
                                                     " bytes: a session may have ",
                                                     options_.max_session_staging_bytes));
    }
    absl::StatusOr<ByteBudget::Grant> grant =
        ByteBudget::Take(staging_budget_, geometry.region_bytes());
    if (!grant.ok()) {
      return absl::ResourceExhaustedError(absl::StrCat("staging of ", grant.status().message()));
    }
    TURBOKV_ASSIGN_OR_RETURN(std::unique_ptr<StagingRegion> region,
                             StagingRegion::Create(geometry));
    const std::shared_ptr<ChargedStaging> charged(
        new ChargedStaging{*std::move(grant), std::move(region)});
    return std::shared_ptr<StagingRegion>(charged, charged->region.get());
  }

  void Reject(const Connection& connection, const absl::Status& status) {
    ++protocol_errors_;
    Complain("share session closed for a protocol error", {{"session", connection.number},
                                                           {"pid", connection.info.peer.pid},
                                                           {"uid", connection.info.peer.uid},
                                                           {"error", status.message()}});
    Close(connection.number);
  }

  void Close(uint64_t number) {
    const auto found = connections_.find(number);
    if (found == connections_.end()) return;
    const ShareSessionInfo info = std::move(found->second.info);
    greeting_.remove(number);
    connections_.erase(found);  // closes the descriptors, and so ends their watches
    if (info.session_id != 0) {
      {
        MutexLock lock(&mutex_);
        staging_.erase(info.session_id);
      }
      LogOne(LogLevel::kInfo, "share session closed",
             {{"session", number},
              {"tenant", info.identity.tenant},
              {"client", info.identity.client},
              {"pid", info.peer.pid}});
      host_->SessionClosed(info.session_id);
    }
    // Last: whoever sees the session gone sees all of it gone.
    sessions_ = connections_.size();
  }

  void LogOne(LogLevel level, absl::string_view what, std::initializer_list<LogField> fields) {
    if (!log_limiter_.Allow(absl::Now())) return;
    if (const uint64_t count = log_limiter_.TakeSuppressed(); count > 0) {
      LogWarning("share server left log lines out", {{"count", count}});
    }
    Log(level, what, fields);
  }
  void Complain(absl::string_view what, std::initializer_list<LogField> fields) {
    LogOne(LogLevel::kWarning, what, fields);
  }

  const ShareServerOptions options_;
  ShareHost* const host_;
  FdListener listener_;
  const UniqueFd epoll_;
  const UniqueFd stop_;
  const std::shared_ptr<ByteBudget> staging_budget_;

  // The thread's own.
  std::map<uint64_t, Connection> connections_;
  std::list<uint64_t> greeting_;  // connections that have not said who they are, oldest first
  uint64_t next_number_ = kFirstConnection;
  absl::Time accept_again_ = absl::InfiniteFuture();
  LogLimiter log_limiter_{kLogLinesPerSecond};

  mutable Mutex mutex_;
  absl::flat_hash_map<uint64_t, std::shared_ptr<StagingRegion>> staging_ ABSL_GUARDED_BY(mutex_);

  std::atomic<uint64_t> sessions_{0};
  std::atomic<uint64_t> opened_sessions_{0};
  std::atomic<uint64_t> refused_sessions_{0};
  std::atomic<uint64_t> protocol_errors_{0};
  std::atomic<uint64_t> mapped_slabs_{0};

  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<ShareServer>> ShareServer::Start(const ShareServerOptions& options,
                                                                ShareHost* host) {
  TURBOKV_RETURN_IF_ERROR(CheckOptions(options));
  UniqueFd epoll(epoll_create1(EPOLL_CLOEXEC));
  UniqueFd stop(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll || !stop) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot make the share server's descriptors: ", std::strerror(errno)));
  }
  TURBOKV_ASSIGN_OR_RETURN(FdListener listener, FdListener::Listen(options.path));
  auto impl =
      std::make_unique<Impl>(options, host, std::move(listener), std::move(epoll), std::move(stop));
  TURBOKV_RETURN_IF_ERROR(impl->Start());
  LogInfo("sharing memory", {{"path", options.path}, {"max_sessions", options.max_sessions}});
  return absl::WrapUnique(new ShareServer(std::move(impl)));
}

ShareServer::ShareServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ShareServer::~ShareServer() = default;

std::shared_ptr<StagingRegion> ShareServer::FindStaging(uint64_t session_id) const {
  return impl_->FindStaging(session_id);
}

ShareServerStats ShareServer::stats() const { return impl_->stats(); }

}  // namespace turbokv
