// The CPU backend: the compute stream is the calling thread (with OpenMP's threads inside the
// kernels), the communication stream one worker thread with a queue.
#include <sys/mman.h>

#include <array>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "runtime/cpu/kernels.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr int64_t kPage = 4096;
constexpr int64_t kHugePage = 2 << 20;

int64_t round_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Anonymous pages, zeroed by the kernel. Large ranges begin at a huge page.
class CpuMemory final : public DeviceMemory {
 public:
  CpuMemory(int64_t bytes, const cpu::CpuThreads& threads);
  CpuMemory(const CpuMemory&) = delete;
  CpuMemory& operator=(const CpuMemory&) = delete;
  ~CpuMemory() override { munmap(mapping_, static_cast<size_t>(mapped_bytes_)); }
  std::byte* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }

 private:
  int64_t bytes_;
  int64_t mapped_bytes_;
  void* mapping_;
  std::byte* data_;
};

CpuMemory::CpuMemory(int64_t bytes, const cpu::CpuThreads& threads) : bytes_(bytes) {
  const bool huge = bytes >= 4 * kHugePage;
  mapped_bytes_ = round_up(std::max<int64_t>(bytes, 1), kPage) + (huge ? kHugePage : 0);
  mapping_ = mmap(nullptr, static_cast<size_t>(mapped_bytes_), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  check(mapping_ != MAP_FAILED, "cannot reserve %s: %s", format_bytes(bytes), std::strerror(errno));
  const auto address = reinterpret_cast<intptr_t>(mapping_);
  data_ = reinterpret_cast<std::byte*>(round_up(address, huge ? kHugePage : kPage));
  if (huge) madvise(data_, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // a wish, not a need
  // Page faults cost more than the writes themselves: they all happen here, in parallel.
  threads.for_chunks(bytes, kHugePage, [this](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += kPage) data_[at] = std::byte{0};
  });
}

// One thread that runs what is put to it, in order, from a ring of fixed size. After an error it
// drops what follows (the peers are lost) and every later call reports that error.
class CommunicationThread {
 public:
  CommunicationThread() : thread_([this] { work(); }) {}
  CommunicationThread(const CommunicationThread&) = delete;
  CommunicationThread& operator=(const CommunicationThread&) = delete;
  ~CommunicationThread();

  void put(const Op& op, const KernelArgs& args);  // waits while the ring is full
  void wait(int64_t count);                        // until `count` ops are done; throws
  void wait_for_all() { wait(num_put_); }          // from the thread that puts
  int64_t count() const { return num_put_; }

 private:
  struct Entry {
    const Op* op = nullptr;
    KernelArgs args;
  };
  void work();
  Entry next();  // waits; an entry without op when the thread shall end
  void finish(std::exception_ptr error);

  std::array<Entry, 256> ring_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t num_put_ = 0;  // written by the putting thread, under the mutex
  int64_t num_done_ = 0;
  bool stop_ = false;
  std::exception_ptr error_;
  std::thread thread_;  // last: it uses the others
};

void run_op(const Op& op, const KernelArgs& args, const cpu::CpuThreads& threads) {
  std::visit([&](const auto& concrete) { cpu::run(concrete, args, threads); }, op);
}

CommunicationThread::~CommunicationThread() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void CommunicationThread::put(const Op& op, const KernelArgs& args) {
  {
    std::unique_lock lock(mutex_);
    const auto capacity = static_cast<int64_t>(ring_.size());
    changed_.wait(lock, [&] { return num_put_ - num_done_ < capacity; });
    ring_[static_cast<size_t>(num_put_ % capacity)] = {&op, args};
    ++num_put_;
  }
  changed_.notify_all();
}

void CommunicationThread::wait(int64_t count) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return num_done_ >= count; });
  if (error_) std::rethrow_exception(error_);
}

CommunicationThread::Entry CommunicationThread::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stop_ || num_done_ < num_put_; });
  if (num_done_ == num_put_) return {};
  return ring_[static_cast<size_t>(num_done_) % ring_.size()];
}

void CommunicationThread::finish(std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    if (error && !error_) error_ = error;
    ++num_done_;
  }
  changed_.notify_all();
}

void CommunicationThread::work() {
  cpu::flush_denormals();
  const cpu::CpuThreads this_thread_only(1);
  bool failed = false;
  for (Entry entry = next(); entry.op != nullptr; entry = next()) {
    std::exception_ptr error;
    try {
      if (!failed) run_op(*entry.op, entry.args, this_thread_only);
    } catch (...) {
      failed = true;
      error = std::current_exception();
    }
    finish(error);
  }
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const CpuOptions& options) : threads_(options.num_threads) {
    cpu::flush_denormals();
    if (options.overlap) communication_ = std::make_unique<CommunicationThread>();
  }

  std::string description() const override {
    return absl::StrFormat("cpu, %d thread%s", threads_.count(), threads_.count() == 1 ? "" : "s");
  }
  std::unique_ptr<DeviceMemory> reserve(int64_t bytes) override {
    return std::make_unique<CpuMemory>(bytes, threads_);
  }
  void copy_in(void* device, const void* host, int64_t bytes) override {
    std::memcpy(device, host, static_cast<size_t>(bytes));
  }
  void copy_out(void* host, const void* device, int64_t bytes) override {
    std::memcpy(host, device, static_cast<size_t>(bytes));
  }
  void copy_out_settled(void* host, const void* device, int64_t bytes) override {
    copy_out(host, device, bytes);
  }
  void fill(void* device, uint32_t word, int64_t bytes) override;
  int64_t workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                          std::span<const TensorSpec> outputs) const override;
  void run(const Op& op, const KernelArgs& args, Stream stream) override;
  void wait_for_communication(int64_t count) override;
  int64_t communication_count() const override;
  void synchronize() override { wait_for_communication(communication_count()); }

 private:
  cpu::CpuThreads threads_;
  std::unique_ptr<CommunicationThread> communication_;  // none without overlap
  int64_t num_inline_ = 0;                              // communication ops run without it
};

void CpuBackend::fill(void* device, uint32_t word, int64_t bytes) {
  check(bytes % 4 == 0, "[cpu] fill of %d bytes: not a multiple of 4", bytes);
  auto* words = static_cast<uint32_t*>(device);
  threads_.for_chunks(bytes / 4, int64_t{1} << 16, [=](int64_t begin, int64_t end) {
    std::fill(words + begin, words + end, word);
  });
}

int64_t CpuBackend::workspace_bytes(const Op& op, std::span<const TensorSpec> inputs,
                                    std::span<const TensorSpec> outputs) const {
  const cpu::WorkspaceQuery query{inputs, outputs, threads_.count()};
  return std::visit([&](const auto& concrete) { return cpu::workspace_bytes(concrete, query); },
                    op);
}

// Kernels compute in f32; bf16 is a type to keep values in, and Cast is the way there and back.
// Collectives and slices know it as well.
void check_dtypes(const Op& op, const KernelArgs& args) {
  if (family(op) == "cast" || family(op) == "collective") return;
  for (const auto& views : {args.inputs, args.outputs}) {
    for (const TensorView& view : views) {
      check(view.dtype != DType::bf16, "[cpu] kernels compute in f32, not in bf16");
    }
  }
}

void CpuBackend::run(const Op& op, const KernelArgs& args, Stream stream) {
  if (stream == Stream::compute) {
    check_dtypes(op, args);
    run_op(op, args, threads_);
  } else if (communication_) {
    communication_->put(op, args);
  } else {
    ++num_inline_;
    run_op(op, args, threads_);
  }
}

void CpuBackend::wait_for_communication(int64_t count) {
  if (communication_) communication_->wait(count);
}

int64_t CpuBackend::communication_count() const {
  return communication_ ? communication_->count() : num_inline_;
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const CpuOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace caravan
