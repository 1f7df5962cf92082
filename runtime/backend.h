// The one interface to a device: memory, two streams, kernels. Implementations: CPU, CUDA.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "runtime/communicator.h"
#include "runtime/graph.h"
#include "runtime/ops/rules.h"

namespace caravan {

// A tensor in memory: dense, row-major. `shape` is what this rank really holds (mesh.h, local_box).
struct TensorView {
  void* data = nullptr;
  Shape shape;
  DType dtype = DType::f32;
  Shape offset = {};  // where it begins in the global tensor; {}: at its start
  Shape whole = {};   // shape of the global tensor; {}: this is all of it

  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  int64_t size() const { return num_elements(shape); }
  int64_t dim(int i) const { return shape[static_cast<size_t>(i)]; }
  int64_t begin(int i) const { return offset.empty() ? 0 : offset[static_cast<size_t>(i)]; }
  int64_t whole_dim(int i) const { return whole.empty() ? dim(i) : whole[static_cast<size_t>(i)]; }
};

// What a kernel gets. It allocates nothing: scratch memory is in `workspace`.
struct KernelArgs {
  std::span<const TensorView> inputs;
  std::span<const TensorView> outputs;
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
  Communicator* communicator = nullptr;  // of the op's axis, for collectives
};

// Memory that a backend reserved; freed with the object. Aligned to 4096 bytes, zeroed.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual std::byte* data() const = 0;
  virtual int64_t bytes() const = 0;
};

// What a backend was once given to run, and can run again at once.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void launch() = 0;  // after all that was put on the compute stream before
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string description() const = 0;  // "cpu, 2 threads"
  // Reserves and touches; Error with ExitCode::internal when the device has not got it.
  virtual std::unique_ptr<DeviceMemory> reserve(int64_t bytes) = 0;
  // Both come after all that was put on the compute stream before; `host` is free again, or
  // filled, when they return.
  virtual void copy_in(void* device, const void* host, int64_t bytes) = 0;
  virtual void copy_out(void* host, const void* device, int64_t bytes) = 0;
  // Bytes that nothing that is on a stream changes, beside whatever runs. From any thread.
  virtual void copy_out_settled(void* host, const void* device, int64_t bytes) = 0;
  virtual void fill(void* device, uint32_t word, int64_t bytes) = 0;  // 4-byte pattern

  // Scratch bytes that `run` needs for this op and these (planned) shapes; 0: none.
  virtual int64_t workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                                  std::span<const TensorSpec> outputs) const = 0;
  // Puts the op on the stream. `op` and the spans of `args` stay alive until it is done. An op on
  // the communication stream begins after everything put on the compute stream before it.
  virtual void run(const Op& op, const KernelArgs& args, Stream stream) = 0;
  // The compute stream goes on when the first `count` ops that were ever put on the communication
  // stream are done.
  virtual void wait_for_communication(int64_t count) = 0;
  virtual int64_t communication_count() const = 0;  // ops ever put on the communication stream
  virtual void synchronize() = 0;                   // both streams are empty; errors surface here

  // Whether `record` works. It calls `issue`, which puts ops on the streams that do not run now but
  // whenever the recording is launched: with the same addresses, and the values of that time. Ops
  // that a stream has run once before need not be prepared any more.
  virtual bool records() const { return false; }
  virtual std::unique_ptr<Recording> record(const std::function<void()>& issue);

  // Whether device memory is host memory too, which anybody may read and write.
  virtual bool is_host_memory() const { return true; }
  // For communicators that work on the host: host memory that the device copies to and from at full
  // speed; copies between it and the device behind what is on the communication stream; and the
  // wait for that stream.
  virtual std::unique_ptr<DeviceMemory> reserve_host(int64_t bytes);
  virtual void copy_for_communication(void* to, const void* from, int64_t bytes);
  virtual void synchronize_communication() {}
  // Called now and then while the host waits for a stream: may throw, and so end the wait, when
  // what runs there can never end because a peer is lost.
  virtual void set_health_check(std::function<void()>) {}
  // The stream of the device's library (cudaStream_t), for communicators that put work on it; null
  // on the CPU.
  virtual void* stream_handle(Stream) { return nullptr; }
};

struct CpuOptions {
  int num_threads = 1;  // of the compute stream, this thread included
  bool overlap = true;  // false: communication runs on the calling thread
};
std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options);

}  // namespace caravan
