// The CUDA backend: a compute, a communication and a copy stream of one device, ordered by events.
// Everything is asynchronous but copy_out and synchronize. What `record` is given becomes a CUDA
// graph.
#include <cuda_runtime_api.h>

#include <array>
#include <mutex>

#include "runtime/cuda/cublas_lt.h"
#include "runtime/cuda/cuda.h"
#include "runtime/cuda/cudnn_attention.h"
#include "runtime/cuda/fill.h"
#include "runtime/cuda/handles.h"
#include "runtime/cuda/kernels.h"
#include "runtime/cuda/libraries.h"
#include "runtime/cuda/staging.h"
#include "runtime/error.h"

namespace caravan {
namespace {

class DeviceBytes final : public DeviceMemory {
 public:
  explicit DeviceBytes(int64_t bytes) : bytes_(bytes) {
    const cudaError_t status = cudaMalloc(&data_, static_cast<size_t>(std::max<int64_t>(bytes, 1)));
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // it is dealt with
      size_t free = 0, total = 0;
      cuda::check_cuda(cudaMemGetInfo(&free, &total), "free memory");
      throw internal_error(absl::StrFormat(
          "the device cannot reserve %s: %s of its %s are free; lower runtime.memory_limit or "
          "train.micro_batch_size, or end what else runs on it",
          format_bytes(bytes), format_bytes(static_cast<int64_t>(free)),
          format_bytes(static_cast<int64_t>(total))));
    }
    cuda::check_cuda(status, "device memory");
  }
  DeviceBytes(const DeviceBytes&) = delete;
  DeviceBytes& operator=(const DeviceBytes&) = delete;
  ~DeviceBytes() override { cudaFree(data_); }
  std::byte* data() const override { return static_cast<std::byte*>(data_); }
  int64_t bytes() const override { return bytes_; }

 private:
  int64_t bytes_;
  void* data_ = nullptr;
};

class PinnedBytes final : public DeviceMemory {
 public:
  explicit PinnedBytes(int64_t bytes) : bytes_(bytes), memory_(std::max<int64_t>(bytes, 1)) {}
  std::byte* data() const override { return memory_.data(); }
  int64_t bytes() const override { return bytes_; }

 private:
  int64_t bytes_;
  cuda::PinnedMemory memory_;
};

class GraphRecording final : public Recording {
 public:
  GraphRecording(cudaGraph_t graph, cudaStream_t stream) : stream_(stream) {
    const cudaError_t status = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    cuda::check_cuda(status, "making a graph");
  }
  GraphRecording(const GraphRecording&) = delete;
  GraphRecording& operator=(const GraphRecording&) = delete;
  ~GraphRecording() override { cudaGraphExecDestroy(graph_); }
  void launch() override { cuda::check_cuda(cudaGraphLaunch(graph_, stream_), "start of a graph"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t graph_ = nullptr;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const CudaOptions& options);

  std::string description() const override { return description_; }
  std::vector<std::string> notes() const override {
    if (cudnn_attention_) return cudnn_attention_->notes();
    return {"attention runs on Caravan's own kernels: " + cudnn_problem_};
  }
  std::unique_ptr<DeviceMemory> reserve(int64_t bytes) override;
  void copy_in(void* device, const void* host, int64_t bytes) override {
    host_.staging.copy_in(device, host, bytes, compute_.get());
  }
  void copy_out(void* host, const void* device, int64_t bytes) override {
    host_.staging.copy_out(host, device, bytes, compute_.get());
  }
  void copy_out_settled(void* host, const void* device, int64_t bytes) override {
    const std::lock_guard lock(settled_mutex_);
    check_cuda_device();
    settled_staging_.copy_out(host, device, bytes, copy_.get());
  }
  void fill(void* device, uint32_t word, int64_t bytes) override {
    check(bytes % 4 == 0, "[cuda] fill of %d bytes: not a multiple of 4", bytes);
    cuda::fill_words(device, word, bytes / 4, compute_.get());
  }
  int64_t workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                          std::span<const TensorSpec> outputs) const override {
    return cuda_workspace_bytes(op, inputs, outputs);
  }
  void run(const Op& op, const KernelArgs& args, Stream stream) override;
  void wait_for_communication(int64_t count) override;
  int64_t communication_count() const override { return num_communications_; }
  void synchronize() override;
  bool is_host_memory() const override { return false; }
  std::unique_ptr<DeviceMemory> reserve_host(int64_t bytes) override {
    return std::make_unique<PinnedBytes>(bytes);
  }
  void copy_for_communication(void* to, const void* from, int64_t bytes) override {
    if (bytes == 0) return;
    cuda::check_cuda(
        cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyDefault, communication()),
        "copy for communication");
  }
  void synchronize_communication() override {
    waiter_.wait(options_.overlap ? communication_ : compute_, "communication");
  }
  void set_health_check(std::function<void()> check) override {
    waiter_.set_check(std::move(check));
  }
  bool records() const override { return options_.graphs; }
  std::unique_ptr<Recording> record(const std::function<void()>& issue) override;
  void* stream_handle(Stream stream) override {
    return stream == Stream::compute ? compute_.get() : communication();
  }

 private:
  // Events of the newest communication ops, by number; older ones are done when a newer one is.
  static constexpr int64_t kEvents = 64;

  void check_cuda_device() const { cuda::check_cuda(cudaSetDevice(options_.device), "the device"); }
  cudaStream_t communication() const {
    return options_.overlap ? communication_.get() : compute_.get();
  }
  cuda::Queue queue(cudaStream_t stream);

  CudaOptions options_;
  std::string description_;
  int num_multiprocessors_ = 0;
  int64_t shared_bytes_ = 0;
  cuda::Stream compute_;
  cuda::Stream communication_;
  cuda::Stream copy_;
  cuda::Event compute_reached_;
  std::array<cuda::Event, kEvents> communication_done_;
  int64_t num_communications_ = 0;
  int64_t num_joined_ = 0;       // the compute stream waits for so many of them already
  cuda::Waiter waiter_;          // for what may depend on other ranks
  cuda::Waiter settled_waiter_;  // for what cannot; on any thread
  cuda::Host host_{cuda::Staging(waiter_)};
  std::mutex settled_mutex_;
  cuda::Staging settled_staging_{settled_waiter_};
  cuda::CublasLt cublas_lt_;
  std::string cudnn_problem_;  // why there is none
  std::unique_ptr<cuda::CudnnAttention> cudnn_attention_;
};

CudaOptions on_device(const CudaOptions& options) {
  cuda::check_cuda(cudaSetDevice(options.device), "the device");
  return options;
}

CudaBackend::CudaBackend(const CudaOptions& options)
    : options_(on_device(options)), cudnn_attention_(cuda::make_cudnn_attention(cudnn_problem_)) {
  cudaDeviceProp properties{};
  cuda::check_cuda(cudaGetDeviceProperties(&properties, options.device), "the device");
  num_multiprocessors_ = properties.multiProcessorCount;
  shared_bytes_ = static_cast<int64_t>(properties.sharedMemPerBlockOptin);
  description_ = absl::StrFormat("cuda:%d, %s, %s", options.device, properties.name,
                                 format_bytes(static_cast<int64_t>(properties.totalGlobalMem)));
}

std::unique_ptr<DeviceMemory> CudaBackend::reserve(int64_t bytes) {
  auto memory = std::make_unique<DeviceBytes>(bytes);
  cuda::check_cuda(cudaMemsetAsync(memory->data(), 0, static_cast<size_t>(bytes), compute_.get()),
                   "zeroing device memory");
  synchronize();
  return memory;
}

cuda::Queue CudaBackend::queue(cudaStream_t stream) {
  return {.stream = stream,
          .num_multiprocessors = num_multiprocessors_,
          .shared_bytes = shared_bytes_,
          .deterministic = options_.deterministic,
          .tunes = options_.tunes && !options_.deterministic,
          .cublas_lt = &cublas_lt_,
          .cudnn_attention = cudnn_attention_.get(),
          .host = &host_};
}

void CudaBackend::run(const Op& op, const KernelArgs& args, Stream stream) {
  const auto put = [&](cudaStream_t on) {
    std::visit([&](const auto& concrete) { cuda::run(concrete, args, queue(on)); }, op);
  };
  if (stream == Stream::compute) {
    put(compute_.get());
    return;
  }
  compute_reached_.record(compute_.get());
  compute_reached_.hold(communication());
  put(communication());
  communication_done_[static_cast<size_t>(num_communications_++ % kEvents)].record(communication());
}

void CudaBackend::wait_for_communication(int64_t count) {
  if (count <= num_joined_) return;
  communication_done_[static_cast<size_t>((count - 1) % kEvents)].hold(compute_.get());
  num_joined_ = count;
}

void CudaBackend::synchronize() {
  waiter_.wait(communication_, "communication");
  waiter_.wait(compute_, "compute");
  num_joined_ = num_communications_;
}

// Ends with all streams joined, as a graph must.
std::unique_ptr<Recording> CudaBackend::record(const std::function<void()>& issue) {
  check(options_.graphs, "[cuda] graphs are switched off");
  num_joined_ = num_communications_;  // what came before a graph is done when it begins
  cuda::check_cuda(cudaStreamBeginCapture(compute_.get(), cudaStreamCaptureModeThreadLocal),
                   "recording a graph");
  try {
    issue();
    wait_for_communication(num_communications_);
  } catch (...) {
    cudaGraph_t abandoned = nullptr;
    if (cudaStreamEndCapture(compute_.get(), &abandoned) == cudaSuccess)
      cudaGraphDestroy(abandoned);
    throw;
  }
  cudaGraph_t graph = nullptr;
  cuda::check_cuda(cudaStreamEndCapture(compute_.get(), &graph), "recording a graph");
  return std::make_unique<GraphRecording>(graph, compute_.get());
}

std::string version_text(int version) {
  return absl::StrFormat("%d.%d", version / 1000, version % 1000 / 10);
}

std::string id_text(const cudaUUID_t& id) {
  std::string text;
  for (const char byte : id.bytes) {
    absl::StrAppendFormat(&text, "%02x", static_cast<unsigned>(static_cast<unsigned char>(byte)));
  }
  return text;
}

CudaDevice examine_device(int index, bool with_memory) {
  cudaDeviceProp properties{};
  cuda::check_cuda(cudaGetDeviceProperties(&properties, index), "the device");
  return {.name = properties.name,
          .id = id_text(properties.uuid),
          .major = properties.major,
          .minor = properties.minor,
          .num_multiprocessors = properties.multiProcessorCount,
          .total_bytes = static_cast<int64_t>(properties.totalGlobalMem),
          .free_bytes = with_memory ? cuda_memory(index).free_bytes : -1};
}

// Code for one capability also runs on later ones, translated by the driver.
std::string capability_problem(const CudaDevice& device) {
  constexpr int kLeast = 80;  // A100: bf16 matrix units, copies beside arithmetic
  const int capability = 10 * device.major + device.minor;
  if (capability >= CARAVAN_LEAST_CAPABILITY) return "";
  if (capability < kLeast) {
    return absl::StrFormat("%s has compute capability %d.%d; 8.0 (A100) or newer is needed",
                           device.name, device.major, device.minor);
  }
  return absl::StrFormat(
      "%s has compute capability %d.%d, this build is for %d.%d and newer: configure with "
      "-DCARAVAN_CUDA_ARCHITECTURES=%d",
      device.name, device.major, device.minor, CARAVAN_LEAST_CAPABILITY / 10,
      CARAVAN_LEAST_CAPABILITY % 10, capability);
}

void examine_devices(CudaStatus& status, bool with_memory) {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);  // 0: there is none
  if (driver > 0) status.driver = version_text(driver);
  const cudaError_t found = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (driver == 0) {
    status.problem = "no NVIDIA driver is installed";
  } else if (driver / 1000 < CUDART_VERSION / 1000) {
    status.problem = absl::StrFormat("the driver is for CUDA %s, this build needs %s: update it",
                                     status.driver, status.runtime);
  } else if (found != cudaSuccess || count == 0) {
    status.problem =
        absl::StrFormat("no NVIDIA device is visible (%s): see nvidia-smi and CUDA_VISIBLE_DEVICES",
                        cudaGetErrorString(found));
  } else if (const std::string problem = cuda::open_cublas_lt(); !problem.empty()) {
    status.problem = problem + ": install the libraries of CUDA 13, or set LD_LIBRARY_PATH";
  }
  for (int i = 0; status.problem.empty() && i < count; ++i) {
    status.devices.push_back(examine_device(i, with_memory));
    status.problem = capability_problem(status.devices.back());
  }
}

}  // namespace

CudaStatus examine_cuda(bool with_memory) {
  CudaStatus status;
  status.is_built_in = true;
  status.runtime = version_text(CUDART_VERSION);
  status.cudnn = cuda::cudnn_version();
  try {
    examine_devices(status, with_memory);
  } catch (const Error& error) {
    status.problem = error.what();
  }
  return status;
}

CudaMemory cuda_memory(int device) {
  cuda::check_cuda(cudaSetDevice(device), "the device");
  size_t free = 0, total = 0;
  cuda::check_cuda(cudaMemGetInfo(&free, &total), "free memory");
  return {static_cast<int64_t>(total), static_cast<int64_t>(free)};
}

std::unique_ptr<Backend> make_cuda_backend(const CudaOptions& options) {
  const CudaStatus status = examine_cuda();
  if (!status.problem.empty()) {
    throw config_error("runtime.device cuda: " + status.problem + "; or use runtime.device=cpu");
  }
  check(options.device >= 0 && options.device < std::ssize(status.devices),
        "[cuda] there is no device %d", options.device);
  return std::make_unique<CudaBackend>(options);
}

int64_t cuda_workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                             std::span<const TensorSpec> outputs) {
  const cuda::WorkspaceQuery query{inputs, outputs};
  return std::visit([&](const auto& concrete) { return cuda::workspace_bytes(concrete, query); },
                    op);
}

}  // namespace caravan
