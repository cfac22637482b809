// A communicator of the fake: a socket, and a thread that stands for the device's kernels.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "client/nccl/nccl_abi.h"
#include "tests/fakes/fake_nccl/fake_stream.h"

namespace turbokv::fake_nccl {

struct Operation {
  bool send = false;
  void* buffer = nullptr;
  size_t bytes = 0;
};

// One group of operations, done as a whole.
struct Batch {
  FakeStream* stream = nullptr;
  std::vector<Operation> operations;
};

class Communicator {
 public:
  // Rank 0 owns `listener`; rank 1 has -1 and connects to `name`.
  Communicator(int rank, int listener, std::string name);
  // Stops what is under way.
  ~Communicator();

  // In progress until State has been asked for a while: as with the library, the work is on its
  // stream only once State says success.
  void Launch(Batch batch);
  void Finalize();
  NcclResult State();
  const char* last_error() const { return last_error_.c_str(); }

 private:
  void Run();
  bool Connect();
  // False: the communicator is of no use any more.
  bool Transfer(const FakeStream& stream, const Operation& operation);
  void SayGoodbye();
  void Fail(NcclResult result, const std::string& message);
  void PeerGone();

  const int rank_;
  const int listener_;
  const std::string name_;
  const bool hang_on_peer_death_;
  int socket_ = -1;
  std::atomic<bool> abort_{false};
  std::atomic<int> state_{kNcclInProgress};  // the thread's view
  std::string last_error_;                   // written before state_

  // The caller's: launched once its time has come and State is asked.
  std::vector<Batch> launching_;
  std::chrono::steady_clock::time_point launch_at_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Batch> queue_;
  bool finalize_ = false;
  std::thread thread_;
};

}  // namespace turbokv::fake_nccl
