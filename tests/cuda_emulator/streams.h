// Emulated streams: queues of work that run as late as they may, when somebody waits for them. So a
// wait that is missing between two streams, or a buffer that is used again too early, shows.
// A stream may be used by one thread at a time; threads may each have their own.
#pragma once

#include <driver_types.h>

#include <functional>

namespace caravan::emulator {

// Puts work on a stream: into the graph that is being captured on it, or into its queue.
void put(cudaStream_t stream, std::function<void()> work);

// Empties the streams that this thread made, as freeing memory does.
void finish_streams();

}  // namespace caravan::emulator
