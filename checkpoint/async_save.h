// Saving while training goes on, on all ranks together. begin() returns at once; the writer thread
// of each rank writes its file, then that of rank 0 commits. No rank waits for another: each tells
// its stage in an exchange that the ranks make every step anyway, and what all have told decides
// what all do next. At most one save is in flight.
//
// Threads: one, which is also the only one that uses `world`; the files are written by `writer`.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "checkpoint/snapshot.h"
#include "checkpoint/writer.h"
#include "checkpoint/writer_thread.h"
#include "runtime/communicator.h"

namespace caravan {

// Where a rank stands with the save in flight.
enum class SaveStage : uint8_t { none, writing, written, committed };

struct SaveResult {
  std::string error;      // of the first rank that failed, the same on all; empty: committed
  SavedCheckpoint saved;  // path: all ranks; the rest: rank 0
  double seconds = 0;     // from begin() until it was known to all
};

class AsyncSave {
 public:
  // `copy`: room for what the writer has not read when training goes on (checkpoint/snapshot.h).
  // `moved`: called by the writer thread with each piece that it has written.
  // `copy_out`: how live memory is read; see checkpoint/snapshot.h.
  AsyncSave(
      Communicator& world, WriterThread& writer, std::span<std::byte> copy,
      std::function<void()> moved = [] {}, CopyOut copy_out = copy_from_host_memory);
  ~AsyncSave();  // gives up what is in flight; older checkpoints stand
  AsyncSave(const AsyncSave&) = delete;
  AsyncSave& operator=(const AsyncSave&) = delete;

  bool in_flight() const { return save_ != nullptr; }
  // Every rank, in the same step; none in flight. The tensors must not change before detach().
  void begin(SaveRequest request);
  // Before any tensor changes. Waits when the writer is late and the copy is too small.
  void detach();

  // What this rank tells the others, and what all told, by rank: every rank calls advance() with
  // the same. The result when the save in flight came to its end.
  SaveStage stage() const;
  std::optional<SaveResult> advance(std::span<const SaveStage> stages);

  // Collective: waits for the end of the save in flight.
  SaveResult finish();

 private:
  struct Save;
  SaveResult result_of_commit();

  Communicator& world_;
  WriterThread& writer_;
  std::span<std::byte> copy_;
  std::function<void()> moved_;
  CopyOut copy_out_;
  std::unique_ptr<Save> save_;
};

}  // namespace caravan
