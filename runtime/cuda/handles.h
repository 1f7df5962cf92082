// Streams, events, graphs and memory of the CUDA runtime as objects that free themselves.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "runtime/cuda/check.h"

namespace caravan::cuda {

class Stream {
 public:
  Stream() { check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "new stream"); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  cudaStream_t get() const { return stream_; }
  void synchronize(const char* what) const { check_cuda(cudaStreamSynchronize(stream_), what); }
  cudaError_t query() const { return cudaStreamQuery(stream_); }

 private:
  cudaStream_t stream_ = nullptr;
};

// A place in a stream. Before it is recorded, waiting for it waits for nothing.
class Event {
 public:
  Event() { check_cuda(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "new event"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(cudaStream_t stream) { check_cuda(cudaEventRecord(event_, stream), "event"); }
  void synchronize() const { check_cuda(cudaEventSynchronize(event_), "wait for an event"); }
  cudaError_t query() const { return cudaEventQuery(event_); }
  // What is put on `stream` later begins after this event.
  void hold(cudaStream_t stream) const {
    check_cuda(cudaStreamWaitEvent(stream, event_, 0), "wait between streams");
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// How the host waits for streams. A collective whose peer is lost never ends: with a check, waits
// poll, and call it now and then; what it throws ends the wait.
class Waiter {
 public:
  void set_check(std::function<void()> check) { check_ = std::move(check); }
  void wait(const Stream& stream, const char* what) const {
    if (!check_) return stream.synchronize(what);
    poll([&] { return stream.query(); }, what);
  }
  void wait(const Event& event) const {
    if (!check_) return event.synchronize();
    poll([&] { return event.query(); }, "wait for an event");
  }

 private:
  void poll(const std::function<cudaError_t()>& query, const char* what) const;

  std::function<void()> check_;
};

// Memory of the host that a device copies to and from at full speed.
class PinnedMemory {
 public:
  explicit PinnedMemory(int64_t bytes) {
    void* memory = nullptr;
    check_cuda(cudaMallocHost(&memory, static_cast<size_t>(bytes)), "pinned memory");
    data_ = static_cast<std::byte*>(memory);
  }
  ~PinnedMemory() { cudaFreeHost(data_); }
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
};

}  // namespace caravan::cuda
