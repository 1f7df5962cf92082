// The training run of this rank: from where its folder stands to max_steps, with evaluation,
// checkpoints and a log on the way.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "checkpoint/writer.h"
#include "launch/data_feed.h"
#include "launch/log.h"
#include "launch/metrics.h"
#include "launch/run_folder.h"
#include "launch/session.h"
#include "launch/signals.h"

namespace caravan {

struct TrainerOptions {
  GraphObserver observer = {};
  // Resumes also when keys have changed that make the run another than the uninterrupted one.
  bool allow_config_change = false;
  // Both go to the session.
  Progress* progress = nullptr;
  std::function<void(Backend&, const Node&, std::span<const TensorView>)> after_node = {};
};

class Trainer {
 public:
  // Collective over the world. What can be wrong with a configuration, its data or its folder is an
  // error here or in run(), before step 1.
  Trainer(const Config& config, MpiSession& mpi, SignalWatch& signals,
          const TrainerOptions& options = {});

  // False when a signal stopped it before max_steps; everything up to there is saved.
  bool run();

  Session& session() { return *session_; }

 private:
  struct StepResult {
    double loss = 0;
    double grad_norm = 0;
    double learning_rate = 0;
    double seconds = 0;
    double data_seconds = 0;
  };

  void begin();  // resumes, or initialises
  void resume(const std::string& path);
  void check_changes(const CheckpointHeader& header) const;
  void show_start() const;
  StepResult train_step();
  void report(const StepResult& result);
  void evaluate_when_due();
  double evaluate();
  bool save_when_due();  // true: a signal asks to stop
  void save();
  void show_summary() const;

  bool is_last_step() const { return step_ == config_.train.max_steps; }
  double eta_seconds() const;

  Config config_;
  SignalWatch& signals_;
  TrainerOptions options_;
  std::unique_ptr<RunFolder> folder_;  // rank 0
  std::unique_ptr<DataFeed> data_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Console> console_;      // rank 0
  std::unique_ptr<MetricsFile> metrics_;  // rank 0
  RankGroup group_;
  std::string run_id_;

  int64_t step_ = 0;    // steps done
  int64_t tokens_ = 0;  // trained on, over all ranks
  std::string last_checkpoint_;
  std::optional<double> train_loss_;
  std::optional<double> validation_loss_;
  int64_t steps_here_ = 0;  // by this process
  double train_seconds_ = 0;
  double data_seconds_ = 0;
};

}  // namespace caravan
