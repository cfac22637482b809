// The pool of one GPU of a turbokvd on this host, mapped here. A worker opens it once for the GPU
// that it runs on, and shares it among its readers.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/channel.h"
#include "client/share/mapped_pool.h"
#include "client/share/share_session.h"
#include "client/share/slab_importer.h"

namespace turbokv {

// Makes what maps the slabs: MakeCudaSlabImporter (client/cuda/cuda_slab_importer.h) on the thread
// whose current GPU it is, or MakeHostSlabImporter for a fake device.
using SlabImporterFactory =
    std::function<absl::StatusOr<std::unique_ptr<SlabImporter>>(const SlabGeometry& geometry)>;

// Threads: any. What is mapped stays readable while this lives, whatever becomes of the server.
class DeviceMemory {
 public:
  // `device_uuid` as the service names it ("GPU-..."). NOT_FOUND: it holds no pages in that GPU's
  // memory, and in which it does; FAILED_PRECONDITION: another host, nothing shared, or the GPU has
  // failed. Else as ShareSession::Connect and the factory.
  static absl::StatusOr<std::shared_ptr<DeviceMemory>> Open(
      const CacheChannel& channel, const std::string& device_uuid,
      const SlabImporterFactory& make_importer);

  const std::string& device_uuid() const { return device_uuid_; }
  // For the messages of gRPC calls.
  uint64_t session_id() const { return session_->session_id(); }
  // False once the server has gone: then lookups need a new one.
  bool alive() const { return session_->alive(); }
  MappedPool& pool() { return *pool_; }

 private:
  DeviceMemory(std::string device_uuid, std::shared_ptr<ShareSession> session,
               std::unique_ptr<MappedPool> pool);

  const std::string device_uuid_;
  const std::shared_ptr<ShareSession> session_;
  const std::unique_ptr<MappedPool> pool_;
};

}  // namespace turbokv
