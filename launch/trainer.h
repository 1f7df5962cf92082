// The training run of this rank: from where its folder stands to max_steps, with evaluation,
// checkpoints and a log on the way.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "launch/data_feed.h"
#include "launch/log.h"
#include "launch/metrics.h"
#include "launch/resume.h"
#include "launch/run_folder.h"
#include "launch/saver.h"
#include "launch/session.h"
#include "launch/signals.h"
#include "launch/training_state.h"

namespace caravan {

struct TrainerOptions {
  GraphObserver observer = {};
  ResumeOptions resume = {};
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
    bool is_skipped = false;  // loss or norm is not finite: the update changed nothing
    double loss = 0;
    double grad_norm = 0;
    double learning_rate = 0;
    double seconds = 0;
    double data_seconds = 0;
    std::optional<double> loss_z = {};  // how unusual they are
    std::optional<double> grad_norm_z = {};
  };

  // What a rank tells the others after each step, and what it asks for.
  struct StepVote {
    SignalRequest request = SignalRequest::none;
    SaveStage stage = SaveStage::none;
  };

  void begin();  // resumes, or initialises
  void open_metrics(bool resumed);
  void show_start() const;
  StepResult train_step();
  void account(StepResult& result);
  void report(const StepResult& result);
  void stop_when_sick(const StepResult& result);
  void evaluate_when_due();
  double evaluate();
  bool save_when_due();  // true: a signal asks to stop
  SignalRequest agree();
  void show_summary() const;

  bool is_last_step() const { return state_.step == config_.train.max_steps; }
  double eta_seconds() const;

  Config config_;
  SignalWatch& signals_;
  TrainerOptions options_;
  std::unique_ptr<RunFolder> folder_;  // rank 0
  std::unique_ptr<DataFeed> data_;
  std::unique_ptr<Session> session_;
  std::unique_ptr<Console> console_;      // rank 0
  std::unique_ptr<MetricsFile> metrics_;  // rank 0
  std::unique_ptr<Saver> saver_;

  RouterMetrics routers_;  // of the last step
  TrainingState state_;
  bool save_is_due_ = false;
  std::vector<StepVote> votes_;    // by rank; like the stages, of one step after the other
  std::vector<SaveStage> stages_;  // by rank
  int64_t steps_here_ = 0;         // by this process
  double train_seconds_ = 0;
  double data_seconds_ = 0;
};

}  // namespace caravan
