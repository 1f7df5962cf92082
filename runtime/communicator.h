// A group of processes that exchange data: one axis of the mesh, or the world.
//
// Every call is collective: all ranks of the group make the same calls in the same order. Calls
// block until this rank's part is done (but see is_asynchronous), and may be made from one thread
// at a time. Buffers are host memory (MPI, self, threads in tests) or device memory (NCCL, and MPI
// by way of the host). A failed call throws Error with ExitCode::peer_lost.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/types.h"

namespace caravan {

class Communicator {
 public:
  virtual ~Communicator() = default;

  // True: calls put work on the stream that it was made with and return; values that they return
  // are there. False: calls return when they are done.
  virtual bool is_asynchronous() const { return false; }
  // Of asynchronous ones: throws when a call that was made before has failed. Does not wait.
  virtual void check_peers() {}

  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Ranks that pass the same color form a group, ordered by key.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  // Sum of `count` elements over the ranks, in place; the same bits on every rank.
  virtual void all_reduce(void* data, int64_t count, DType dtype) = 0;
  // Rank i's `bytes` arrive at recv + i * bytes. In place when send == recv + rank() * bytes.
  virtual void all_gather(const void* send, void* recv, int64_t bytes) = 0;
  // Sum over the ranks of size() blocks of `count` elements; rank i gets block i.
  // recv may be this rank's block inside send.
  virtual void reduce_scatter(const void* send, void* recv, int64_t count, DType dtype) = 0;
  // Block i of send goes to rank i; block i of recv came from rank i. send != recv.
  virtual void all_to_all(const void* send, void* recv, int64_t bytes) = 0;
  // The same with blocks of different sizes, one after another; by rank. What a rank sends to
  // another is what that one receives from it.
  virtual void all_to_all_v(const void* send, std::span<const int64_t> send_bytes, void* recv,
                            std::span<const int64_t> recv_bytes) = 0;
  // The largest value of all ranks. NaN is smaller than any number.
  virtual float all_reduce_max(float value) = 0;
  virtual void broadcast(void* data, int64_t bytes, int root) = 0;
  virtual void send(const void* data, int64_t bytes, int to) = 0;
  virtual void recv(void* data, int64_t bytes, int from) = 0;
  virtual void barrier() = 0;
};

// A group of one: copies, or does nothing.
std::unique_ptr<Communicator> make_self_communicator();

// Control-plane helpers built on the calls above; not for the step loop.
std::vector<std::string> gather_strings(Communicator& communicator, const std::string& mine);
double all_reduce_sum(Communicator& communicator, double value);  // in rank order, exact on all

}  // namespace caravan
