// NCCL's communicators are non-blocking here: a call may return before it has been put on the
// stream, and is then asked until it has, or the time is over. So no call hangs in a library
// because a peer is gone; a kernel that waits for a peer is found by check_peers, which whoever
// waits for the stream calls now and then.
#include "parallel/nccl_communicator.h"

#include "parallel/nccl_on_demand.h"

#include <cuda_runtime_api.h>
#include <nccl.h>

#include <chrono>
#include <cstring>
#include <exception>
#include <thread>

#include "runtime/cuda/check.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using Clock = std::chrono::steady_clock;

// Of an error that is this process's own, its GPU or its memory, no other is to blame.
[[noreturn]] void fail(ncclResult_t status, ncclComm_t comm, const char* what) {
  const bool is_own = status == ncclUnhandledCudaError || status == ncclInvalidArgument ||
                      status == ncclInvalidUsage;
  const char* advice =
      is_own ? "This process's GPU failed or has too little free memory: lower "
               "runtime.memory_limit, or set NCCL_DEBUG=WARN"
             : "Another process has probably died: look for its message, or set NCCL_DEBUG=WARN; "
               "then start again to resume from the last checkpoint";
  throw Error(is_own ? ExitCode::internal : ExitCode::peer_lost,
              absl::StrFormat("NCCL: %s failed: %s (%s). %s", what, ncclGetErrorString(status),
                              ncclGetLastError(comm), advice));
}

ncclDataType_t nccl_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return ncclFloat32;
    case DType::bf16:
      return ncclBfloat16;
    case DType::i32:
      return ncclInt32;
  }
  throw internal_error("unknown type");
}

class NcclCommunicator final : public Communicator {
 public:
  NcclCommunicator(std::unique_ptr<Communicator> control, const NcclOptions& options);
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  bool is_asynchronous() const override { return true; }
  void check_peers() override;
  int rank() const override { return control_->rank(); }
  int size() const override { return control_->size(); }
  std::unique_ptr<Communicator> split(int color, int key) override {
    return make_nccl_communicator(control_->split(color, key), options_);
  }
  void all_reduce(void* data, int64_t count, DType dtype) override;
  void all_gather(const void* send, void* recv, int64_t bytes) override;
  void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) override;
  void all_to_all(const void* send, void* recv, int64_t bytes) override;
  void all_to_all_v(const void* send, std::span<const int64_t> send_bytes, void* recv,
                    std::span<const int64_t> recv_bytes) override;
  float all_reduce_max(float value) override { return control_->all_reduce_max(value); }
  void broadcast(void* data, int64_t bytes, int root) override;
  void send(const void* data, int64_t bytes, int to) override;
  void recv(void* data, int64_t bytes, int from) override;
  void barrier() override;

 private:
  void complete(ncclResult_t status, const char* what);
  void send_block(const std::byte* data, int64_t bytes, int peer);
  void recv_block(std::byte* data, int64_t bytes, int peer);
  // Sends and receives that `issue` puts out, as one call.
  template <typename Issue>
  void grouped(const char* what, Issue issue);
  void register_memory();
  void abort();

  std::unique_ptr<Communicator> control_;
  NcclOptions options_;
  cudaStream_t stream_;
  ncclComm_t comm_ = nullptr;
  void* registration_ = nullptr;
};

NcclCommunicator::NcclCommunicator(std::unique_ptr<Communicator> control,
                                   const NcclOptions& options)
    : control_(std::move(control)),
      options_(options),
      stream_(static_cast<cudaStream_t>(options.stream)) {
  ncclUniqueId id{};
  if (rank() == 0) {
    const ncclResult_t status = ncclGetUniqueId(&id);
    if (status != ncclSuccess) fail(status, nullptr, "the start");
  }
  control_->broadcast(&id, sizeof(id), 0);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  try {
    complete(ncclCommInitRankConfig(&comm_, size(), id, rank(), &config),
             "finding the other ranks");
    register_memory();
  } catch (...) {
    abort();
    throw;
  }
}

// While an exception passes by, the peers are not known to join a finalization.
NcclCommunicator::~NcclCommunicator() {
  if (comm_ == nullptr) return;
  if (std::uncaught_exceptions() > 0) {
    abort();
    return;
  }
  try {
    if (registration_ != nullptr) complete(ncclCommDeregister(comm_, registration_), "the end");
    complete(ncclCommFinalize(comm_), "the end");
    complete(ncclCommDestroy(comm_), "the end");
    comm_ = nullptr;
  } catch (const Error&) {
    abort();
  }
}

void NcclCommunicator::abort() {
  if (comm_ != nullptr) ncclCommAbort(comm_);
  comm_ = nullptr;
}

// Registered memory spares NCCL copies on some networks. Where it cannot be, all works without.
void NcclCommunicator::register_memory() {
  if (options_.memory == nullptr || options_.memory_bytes == 0) return;
  const auto bytes = static_cast<size_t>(options_.memory_bytes);
  const ncclResult_t status = ncclCommRegister(comm_, options_.memory, bytes, &registration_);
  if (status != ncclSuccess && status != ncclInProgress) {
    registration_ = nullptr;
    return;
  }
  complete(status, "registering memory");
}

void NcclCommunicator::complete(ncclResult_t status, const char* what) {
  const auto start = Clock::now();
  const std::chrono::duration<double> limit(options_.limit_seconds);
  while (status == ncclInProgress) {
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &status);
    if (asked != ncclSuccess) fail(asked, comm_, what);
    if (Clock::now() - start > limit) {
      throw Error(ExitCode::peer_lost,
                  absl::StrFormat("NCCL: %s took longer than %.0f s; another process has died or "
                                  "cannot be reached: see its message, or set NCCL_DEBUG=INFO",
                                  what, options_.limit_seconds));
    }
    if (status == ncclInProgress && Clock::now() - start > std::chrono::milliseconds(1)) {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  if (status != ncclSuccess) fail(status, comm_, what);
}

void NcclCommunicator::check_peers() {
  if (comm_ == nullptr) return;
  ncclResult_t state = ncclSuccess;
  const ncclResult_t asked = ncclCommGetAsyncError(comm_, &state);
  if (asked == ncclSuccess && (state == ncclSuccess || state == ncclInProgress)) return;
  try {
    fail(asked == ncclSuccess ? state : asked, comm_, "a collective");
  } catch (...) {
    abort();  // kernels that wait for the peer end
    throw;
  }
}

void NcclCommunicator::all_reduce(void* data, int64_t count, DType dtype) {
  if (count == 0) return;
  complete(ncclAllReduce(data, data, static_cast<size_t>(count), nccl_type(dtype), ncclSum, comm_,
                         stream_),
           "all_reduce");
}

void NcclCommunicator::all_gather(const void* send, void* recv, int64_t bytes) {
  if (bytes == 0) return;
  complete(ncclAllGather(send, recv, static_cast<size_t>(bytes), ncclInt8, comm_, stream_),
           "all_gather");
}

void NcclCommunicator::reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) {
  if (count == 0) return;
  complete(ncclReduceScatter(send, recv, static_cast<size_t>(count), nccl_type(dtype), ncclSum,
                             comm_, stream_),
           "reduce_scatter");
}

void NcclCommunicator::broadcast(void* data, int64_t bytes, int root) {
  if (bytes == 0) return;
  complete(ncclBroadcast(data, data, static_cast<size_t>(bytes), ncclInt8, root, comm_, stream_),
           "broadcast");
}

// Inside a group calls may only say that they are in progress.
void NcclCommunicator::send_block(const std::byte* data, int64_t bytes, int peer) {
  if (bytes == 0) return;
  const ncclResult_t status =
      ncclSend(data, static_cast<size_t>(bytes), ncclInt8, peer, comm_, stream_);
  if (status != ncclSuccess && status != ncclInProgress) fail(status, comm_, "send");
}

void NcclCommunicator::recv_block(std::byte* data, int64_t bytes, int peer) {
  if (bytes == 0) return;
  const ncclResult_t status =
      ncclRecv(data, static_cast<size_t>(bytes), ncclInt8, peer, comm_, stream_);
  if (status != ncclSuccess && status != ncclInProgress) fail(status, comm_, "recv");
}

template <typename Issue>
void NcclCommunicator::grouped(const char* what, Issue issue) {
  const ncclResult_t status = ncclGroupStart();
  if (status != ncclSuccess) fail(status, comm_, what);
  try {
    issue();
  } catch (...) {
    ncclGroupEnd();  // the first error is the one to tell
    throw;
  }
  complete(ncclGroupEnd(), what);
}

void NcclCommunicator::all_to_all(const void* send, void* recv, int64_t bytes) {
  if (bytes == 0) return;
  const auto* const from = static_cast<const std::byte*>(send);
  auto* const to = static_cast<std::byte*>(recv);
  grouped("all_to_all", [&] {
    for (int peer = 0; peer < size(); ++peer) {
      send_block(from + peer * bytes, bytes, peer);
      recv_block(to + peer * bytes, bytes, peer);
    }
  });
}

void NcclCommunicator::all_to_all_v(const void* send, std::span<const int64_t> send_bytes,
                                    void* recv, std::span<const int64_t> recv_bytes) {
  const auto* from = static_cast<const std::byte*>(send);
  auto* to = static_cast<std::byte*>(recv);
  grouped("all_to_all_v", [&] {
    for (int peer = 0; peer < size(); ++peer) {
      const auto i = static_cast<size_t>(peer);
      send_block(from, send_bytes[i], peer);
      recv_block(to, recv_bytes[i], peer);
      from += send_bytes[i];
      to += recv_bytes[i];
    }
  });
}

void NcclCommunicator::send(const void* data, int64_t bytes, int to) {
  grouped("send", [&] { send_block(static_cast<const std::byte*>(data), bytes, to); });
}

void NcclCommunicator::recv(void* data, int64_t bytes, int from) {
  grouped("recv", [&] { recv_block(static_cast<std::byte*>(data), bytes, from); });
}

// For the host: what it has put on the stream is done on all ranks.
void NcclCommunicator::barrier() {
  cudaError_t status = cudaErrorNotReady;
  while ((status = cudaStreamQuery(stream_)) == cudaErrorNotReady) {
    check_peers();
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  cuda::check_cuda(status, "barrier");
  control_->barrier();
}

}  // namespace

std::string nccl_version() {
  int version = 0;
  if (!open_nccl().empty() || ncclGetVersion(&version) != ncclSuccess) return "";
  return absl::StrFormat("%d.%d.%d", version / 10000, version % 10000 / 100, version % 100);
}

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> control,
                                                     const NcclOptions& options) {
  return std::make_unique<NcclCommunicator>(std::move(control), options);
}

}  // namespace caravan
