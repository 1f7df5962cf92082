// Streams, events and graphs of the CUDA runtime, emulated: see streams.h.
#include "tests/cuda_emulator/streams.h"

#include <cuda_runtime.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <vector>

namespace caravan::emulator {

using Work = std::function<void()>;

// What was put on streams while they were captured, in the order of the calls. That is an order
// that the waits allow, as what is waited for was put before.
struct Stream;
struct Graph {
  std::vector<Work> work;
  bool ended = false;                    // the capture
  std::map<Stream*, int64_t> last_put;   // by other streams than the origin: size of `work` then
  std::map<Stream*, int64_t> joined_at;  // and at the event of theirs that was last waited for
};

struct Stream {
  std::deque<Work> queue;
  int64_t num_put = 0;
  int64_t num_done = 0;
  std::shared_ptr<Graph> capture;  // not null, and not ended: calls go there
  bool is_origin = false;          // where the capture began

  Graph* capturing() {
    if (capture && capture->ended) capture = nullptr;
    return capture.get();
  }
};

struct Event {
  Stream* stream = nullptr;  // null: not recorded yet
  int64_t position = 0;      // done when so many are done on the stream; in a capture: its size
  std::shared_ptr<Graph> capture;
};

namespace {

Stream& of(cudaStream_t stream) { return *reinterpret_cast<Stream*>(stream); }
Event& of(cudaEvent_t event) { return *reinterpret_cast<Event*>(event); }
Graph& of(cudaGraph_t graph) { return *reinterpret_cast<Graph*>(graph); }
Graph& of(cudaGraphExec_t graph) { return *reinterpret_cast<Graph*>(graph); }

void run_until(Stream& stream, int64_t position) {
  while (stream.num_done < position) {
    const Work work = std::move(stream.queue.front());
    stream.queue.pop_front();
    work();
    ++stream.num_done;
  }
}

void enqueue(Stream& stream, Work work) {
  stream.queue.push_back(std::move(work));
  ++stream.num_put;
}

std::set<Stream*>& streams_of_this_thread() {
  thread_local std::set<Stream*> streams;
  return streams;
}

}  // namespace

void finish_streams() {
  for (Stream* stream : streams_of_this_thread()) run_until(*stream, stream->num_put);
}

void put(cudaStream_t handle, Work work) {
  Stream& stream = of(handle);
  if (Graph* graph = stream.capturing()) {
    graph->work.push_back(std::move(work));
    if (!stream.is_origin) graph->last_put[&stream] = std::ssize(graph->work);
  } else {
    enqueue(stream, std::move(work));
  }
}

}  // namespace caravan::emulator

namespace emulator = caravan::emulator;

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  auto* made = new emulator::Stream;
  emulator::streams_of_this_thread().insert(made);
  *stream = reinterpret_cast<cudaStream_t>(made);
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return cudaStreamCreateWithFlags(stream, 0);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  emulator::streams_of_this_thread().erase(&emulator::of(stream));
  delete &emulator::of(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  emulator::Stream& stream = emulator::of(handle);
  if (stream.capturing() != nullptr) return cudaErrorStreamCaptureUnsupported;
  emulator::run_until(stream, stream.num_put);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = reinterpret_cast<cudaEvent_t>(new emulator::Event);
  return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, 0); }
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete &emulator::of(event);
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  emulator::Stream& stream = emulator::of(handle);
  if (const emulator::Graph* graph = stream.capturing()) {
    emulator::of(event) = {&stream, std::ssize(graph->work), stream.capture};
  } else {
    emulator::of(event) = {&stream, stream.num_put, nullptr};
  }
  return cudaSuccess;
}
// Whoever asks again and again gets there: each time one piece of work is done.
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  emulator::Stream& stream = emulator::of(handle);
  if (stream.capturing() != nullptr) return cudaErrorStreamCaptureUnsupported;
  if (stream.num_done == stream.num_put) return cudaSuccess;
  emulator::run_until(stream, stream.num_done + 1);
  return cudaErrorNotReady;
}
cudaError_t cudaEventQuery(cudaEvent_t handle) {
  const emulator::Event& event = emulator::of(handle);
  if (event.stream == nullptr || event.stream->num_done >= event.position) return cudaSuccess;
  emulator::run_until(*event.stream, event.stream->num_done + 1);
  return cudaErrorNotReady;
}
cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  const emulator::Event& event = emulator::of(handle);
  if (event.capture && !event.capture->ended) return cudaErrorStreamCaptureUnsupported;
  if (event.stream != nullptr) emulator::run_until(*event.stream, event.position);
  return cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1;  // nothing here may depend on time
  return cudaSuccess;
}

// A stream that waits for an event of a capture joins that capture, as on a device.
cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event_handle, unsigned) {
  emulator::Stream& stream = emulator::of(handle);
  const emulator::Event event = emulator::of(event_handle);
  if (event.stream == nullptr) return cudaSuccess;
  emulator::Graph* graph = stream.capturing();
  if (event.capture && !event.capture->ended) {
    if (graph != nullptr && graph != event.capture.get()) return cudaErrorStreamCaptureMerge;
    stream.capture = event.capture;
    event.capture->joined_at[event.stream] = event.position;
    return cudaSuccess;
  }
  if (graph != nullptr) return cudaErrorStreamCaptureIsolation;
  if (event.capture) return cudaSuccess;  // of a graph that ended: nothing runs on its account
  emulator::enqueue(stream, [event] { emulator::run_until(*event.stream, event.position); });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode) {
  emulator::Stream& stream = emulator::of(handle);
  stream.capture = std::make_shared<emulator::Graph>();
  stream.is_origin = true;
  return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  *status = emulator::of(handle).capturing() != nullptr ? cudaStreamCaptureStatusActive
                                                        : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  emulator::Stream& stream = emulator::of(handle);
  if (stream.capturing() == nullptr || !stream.is_origin) return cudaErrorStreamCaptureUnmatched;
  const std::shared_ptr<emulator::Graph> captured = std::move(stream.capture);
  captured->ended = true;
  stream.is_origin = false;
  for (const auto& [other, position] : captured->last_put) {
    if (captured->joined_at[other] < position) return cudaErrorStreamCaptureUnjoined;
  }
  *graph = reinterpret_cast<cudaGraph_t>(new emulator::Graph(*captured));
  return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = reinterpret_cast<cudaGraphExec_t>(new emulator::Graph(emulator::of(graph)));
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const emulator::Work& work : emulator::of(exec).work) emulator::put(stream, work);
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete &emulator::of(graph);
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete &emulator::of(exec);
  return cudaSuccess;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  emulator::put(stream, [function, data] { function(data); });
  return cudaSuccess;
}

}  // extern "C"
