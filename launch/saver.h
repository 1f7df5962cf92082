// The checkpoints that a run writes: room for them, what is in them, what became of them. Saving
// goes on beside training (checkpoint/async_save.h); what training waits for it is counted.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "checkpoint/async_save.h"
#include "launch/config.h"
#include "launch/log.h"
#include "launch/session.h"
#include "launch/training_state.h"

namespace caravan {

class Saver {
 public:
  // `session` and `console` (rank 0; null elsewhere) outlive it. `attempt`: the same on all ranks
  // and never used before, part of the name of temporaries. `data_identity` goes into checkpoints.
  Saver(const Config& config, Session& session, Console* console, std::string attempt,
        std::string data_identity);

  // Rank 0, before step 1: a checkpoint error when the file system has no room for the checkpoints
  // that will lie there at a time.
  void check_space(int64_t step) const;

  // Collective. Begins to save; waits for the end of the save before this one, if need be.
  void begin(const TrainingState& state);
  // What this rank tells in the exchange of every step, and what all told.
  SaveStage stage() const { return save_.stage(); }
  void advance(std::span<const SaveStage> stages);
  // Before parameters or optimizer state change.
  void detach();
  // Collective. Waits until nothing is in flight. `must_succeed`: a save that failed is an error
  // whatever checkpoint.on_save_error says.
  void finish(bool must_succeed);

  const std::string& last_checkpoint() const { return last_checkpoint_; }  // "": none
  void set_last_checkpoint(const std::string& path) { last_checkpoint_ = path; }
  // Seconds that training has waited for saving since the last call.
  double take_wait_seconds();

 private:
  class Wait;
  SaveRequest request_for(const TrainingState& state) const;
  void settle(const SaveResult& result, bool must_succeed);

  const Config& config_;
  Session& session_;
  Console* console_;
  std::string attempt_;
  std::string data_identity_;
  WriterThread writer_;
  AsyncSave save_;
  int64_t step_ = 0;  // of the save in flight
  std::string last_checkpoint_;
  double wait_seconds_ = 0;       // not taken yet
  double save_wait_seconds_ = 0;  // of the save in flight
};

}  // namespace caravan
