#include "tests/unit/client/cuda/in_place_service.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/device/cuda_device.h"
#include "server/index/block_cache.h"
#include "server/share/cache_share_host.h"
#include "server/share/share_server.h"
#include "tests/unit/client/cuda/in_place_blocks.h"

namespace turbokv::testing {
namespace {

constexpr char kSocketVariable[] = "TURBOKV_IN_PLACE_SOCKET";
constexpr char kPipesVariable[] = "TURBOKV_IN_PLACE_PIPES";  // "to read,to write"
constexpr PoolId kGpuPool = 1;
constexpr size_t kSlabBytes = size_t{128} << 20;
constexpr char kReady = 'r';

bool ReadAll(int fd, void* bytes, size_t size) {
  auto* at = static_cast<uint8_t*>(bytes);
  while (size > 0) {
    const ssize_t got = read(fd, at, size);
    if (got <= 0) return false;
    at += got;
    size -= static_cast<size_t>(got);
  }
  return true;
}

bool WriteAll(int fd, const void* bytes, size_t size) {
  const auto* at = static_cast<const uint8_t*>(bytes);
  while (size > 0) {
    const ssize_t put = write(fd, at, size);
    if (put <= 0) return false;
    at += put;
    size -= static_cast<size_t>(put);
  }
  return true;
}

Digest KeyOf(int64_t block) {
  Digest key{};
  for (int i = 0; i < 8; ++i) key[i] = static_cast<uint8_t>(block >> (8 * i));
  key[31] = 1;
  return key;
}

std::vector<Digest> Keys(int64_t blocks) {
  std::vector<Digest> keys;
  for (int64_t block = 0; block < blocks; ++block) keys.push_back(KeyOf(block));
  return keys;
}

void WriteBlocks(BlockCache* cache, Device* device) {
  const auto spec = InPlaceSpec();
  const auto geometry = EntryGeometry::ForBlock(*spec);
  std::vector<ReserveRequest> requests;
  for (const Digest& key : Keys(kInPlaceBlocks)) {
    requests.push_back({key, geometry, kPageTokens, kGpuPool});
  }
  auto entries = cache->Reserve({}, requests);
  ASSERT_TRUE(entries.ok()) << entries.status();
  const BlockMaker maker(spec);
  auto stream = *device->MakeStream();
  auto pinned = *device->AllocatePinned(spec->block_bytes());
  for (int64_t block = 0; block < kInPlaceBlocks; ++block) {
    const std::vector<uint8_t> bytes = maker.Block(block);
    std::copy(bytes.begin(), bytes.end(), pinned->data());
    ASSERT_TRUE(
        stream->CopyToDevice((*entries)[block].page(0).data(), pinned->data(), bytes.size()).ok());
    ASSERT_TRUE(stream->Wait().ok());
  }
  ASSERT_EQ(cache->Publish(*std::move(entries)), kInPlaceBlocks);
}

// Answers lookups until the worker closes its end.
void Serve(BlockCache* cache, int in, int out) {
  const auto spec = InPlaceSpec();
  for (int64_t blocks = 0; ReadAll(in, &blocks, sizeof(blocks));) {
    const auto outcome =
        cache->Lookup({}, spec->fingerprint, Keys(blocks), nullptr, absl::Minutes(5), kGpuPool);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    ASSERT_EQ(outcome->matched_blocks, blocks);
    const auto lease = *cache->FindLease({}, outcome->lease_id);
    std::vector<SharedPlace> places;
    for (const EntryRef& block : lease->blocks) {
      const Place place = block.place();
      places.push_back({place.pool, place.offset_bytes, place.generation});
    }
    ASSERT_TRUE(WriteAll(out, &outcome->lease_id, sizeof(outcome->lease_id)));
    ASSERT_TRUE(WriteAll(out, places.data(), places.size() * sizeof(SharedPlace)));
  }
}

// Not a test: the service's process.
TEST(InPlaceServiceProcess, DISABLED_Serves) {
  int in = -1, out = -1;
  const char* const pipes = std::getenv(kPipesVariable);
  if (pipes == nullptr) GTEST_SKIP() << "started by InPlaceService only";
  ASSERT_EQ(std::sscanf(pipes, "%d,%d", &in, &out), 2);
  auto devices = OpenCudaDevices({0});
  ASSERT_TRUE(devices.ok()) << devices.status();
  Device& device = *(*devices)[0];
  const size_t blocks_a_slab = kSlabBytes / InPlaceSpec()->block_bytes();
  const size_t slabs = kInPlaceBlocks / blocks_a_slab + 1;
  auto arena = device.MakeArena(slabs * kSlabBytes, kSlabBytes, /*shareable=*/true);
  ASSERT_TRUE(arena.ok()) << arena.status();
  DevicePools pools;
  pools.arenas.push_back(*std::move(arena));
  BlockCacheOptions options;
  options.budget_bytes = size_t{64} << 20;
  options.shareable = true;
  auto cache = BlockCache::Create(options, nullptr, std::move(pools));
  ASSERT_TRUE(cache.ok()) << cache.status();
  CacheShareHost host(cache->get());
  ShareServerOptions share;
  share.path = std::getenv(kSocketVariable);
  auto server = ShareServer::Start(share, &host);
  ASSERT_TRUE(server.ok()) << server.status();
  WriteBlocks(cache->get(), &device);
  if (HasFatalFailure()) return;
  ASSERT_TRUE(WriteAll(out, &kReady, 1));
  Serve(cache->get(), in, out);
}

}  // namespace

absl::StatusOr<std::unique_ptr<InPlaceService>> InPlaceService::Start(
    const std::string& socket_path) {
  int to_service[2], from_service[2];
  if (pipe2(to_service, O_CLOEXEC) != 0) return absl::InternalError("no pipe");
  UniqueFd service_in(to_service[0]);
  auto service = std::make_unique<InPlaceService>();
  service->to_service_ = UniqueFd(to_service[1]);
  if (pipe2(from_service, O_CLOEXEC) != 0) return absl::InternalError("no pipe");
  UniqueFd service_out(from_service[1]);
  service->from_service_ = UniqueFd(from_service[0]);
  // Only the child has the variables and, without close-on-exec, its ends of the pipes.
  const std::string pipes = absl::StrCat(service_in.get(), ",", service_out.get());
  service->pid_ = fork();
  if (service->pid_ == 0) {
    setenv(kSocketVariable, socket_path.c_str(), 1);
    setenv(kPipesVariable, pipes.c_str(), 1);
    fcntl(service_in.get(), F_SETFD, 0);
    fcntl(service_out.get(), F_SETFD, 0);
    execl("/proc/self/exe", "cuda_in_place_service", "--gtest_also_run_disabled_tests",
          "--gtest_filter=InPlaceServiceProcess.*", nullptr);
    _exit(1);
  }
  service_in = UniqueFd();
  service_out = UniqueFd();
  char answer = 0;
  if (service->pid_ < 0 || !ReadAll(service->from_service_.get(), &answer, 1)) {
    return absl::UnavailableError("the service's process ended before it was ready");
  }
  return service;
}

InPlaceService::~InPlaceService() { Kill(); }

void InPlaceService::Kill() {
  if (pid_ <= 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

absl::StatusOr<LeasedPlaces> InPlaceService::Lookup(int64_t blocks) {
  LeasedPlaces found;
  found.places.resize(static_cast<size_t>(blocks));
  if (!WriteAll(to_service_.get(), &blocks, sizeof(blocks)) ||
      !ReadAll(from_service_.get(), &found.lease_id, sizeof(found.lease_id)) ||
      !ReadAll(from_service_.get(), found.places.data(),
               found.places.size() * sizeof(SharedPlace))) {
    return absl::UnavailableError("the service's process has ended");
  }
  return found;
}

}  // namespace turbokv::testing
