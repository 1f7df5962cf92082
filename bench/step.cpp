// Times training steps on synthetic tokens: no data files, no checkpoints, no log.
//   bench_step [warmup=2] [steps=7] [balanced=0] CONFIG [key=value ...]       also under mpirun
// balanced=1: routers deal tokens out to experts in turn, whatever their logits say.
// Prints one JSON line on rank 0: tokens/s, the median step, time by kind of node (of the same
// steps; under MPI a collective counts where it is waited for), bytes planned and held.
#include <chrono>
#include <optional>

#include "bench/bench_main.h"
#include "bench/profile.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
#include "launch/session.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

// Random tokens, one document per sequence.
void fill_batch(Executor& executor, int64_t vocab_size, int64_t sequence_len, uint64_t seed) {
  const RandomStream random(seed, RandomPurpose::test, 0);
  const TensorView ids = executor.input("input_ids");
  for (int64_t i = 0; i < ids.size(); ++i) {
    const auto token = [&](int64_t at) {
      return static_cast<int32_t>(random.bits(static_cast<uint64_t>(at)) %
                                  static_cast<uint64_t>(vocab_size));
    };
    ids.as<int32_t>()[i] = token(i);
    executor.input("targets").as<int32_t>()[i] = token(i + 1);
    executor.input("positions").as<int32_t>()[i] = static_cast<int32_t>(i % sequence_len);
    executor.input("document_start").as<int32_t>()[i] = 0;
  }
}

void deal_out(const Node& node, std::span<const TensorView> outputs, int64_t num_experts) {
  if (!std::holds_alternative<Route>(node.op)) return;
  const TensorView& experts = outputs[1];
  for (int64_t i = 0; i < experts.size(); ++i) {
    experts.as<int32_t>()[i] = static_cast<int32_t>(i % num_experts);
  }
}

SessionOptions session_options(const Config& config, bool is_balanced) {
  SessionOptions options;
  if (!is_balanced) return options;
  options.after_node = [experts = config.model.num_local_experts](
                           Backend&, const Node& node, std::span<const TensorView> outputs) {
    deal_out(node, outputs, experts);
  };
  return options;
}

class StepBench {
 public:
  StepBench(const Config& config, MpiSession& mpi, SessionOptions options)
      : session_(config, mpi, with_profile(std::move(options))) {
    initialize_parameters(session_.plan(), session_.mesh(), session_.backend(), session_.arena(),
                          static_cast<uint64_t>(config.train.seed), session_.num_threads(),
                          session_.progress());
  }

  nlohmann::json run(int num_warmup_steps, int num_timed_steps) {
    for (int i = 0; i < num_warmup_steps; ++i) step();
    profile_.emplace(session_.plan());
    std::vector<double> times;
    for (int i = 0; i < num_timed_steps; ++i) {
      session_.world().barrier();
      const auto start = std::chrono::steady_clock::now();
      step();
      times.push_back(milliseconds_since(start));
      profile_->end_step();
    }
    const double step_ms = median(times);
    const Config& config = session_.config();
    const auto tokens =
        static_cast<double>(config.train.global_batch_size * config.data.sequence_len);
    return {{"tok_s", tokens / step_ms * 1e3},
            {"step_ms", step_ms},
            {"kinds", profile_->kinds()},
            {"arena_bytes", session_.plan().arena_bytes()},
            {"planned_bytes", session_.planned_bytes()},
            {"peak_rss_bytes", peak_resident_bytes()},
            {"loss", session_.executor("update").output("loss")},
            {"parameters", num_parameters(session_.plan())}};
  }

 private:
  SessionOptions with_profile(SessionOptions options) {
    options.on_node = [this](const Node& node, double seconds) {
      if (profile_) profile_->add(node, seconds);
    };
    return options;
  }

  void step() {
    const int64_t micro_steps = session_.plan().accumulation_steps;
    for (int64_t micro = 0; micro < micro_steps; ++micro) {
      const bool is_last = micro + 1 == micro_steps;
      Executor& executor = session_.executor(is_last ? "update" : "accumulate");
      fill_batch(executor, session_.config().model.vocab_size, session_.config().data.sequence_len,
                 static_cast<uint64_t>(session_.mesh().rank));
      if (micro_steps > 1) executor.set_input("keep", micro == 0 ? 0.0f : 1.0f);
      if (is_last) {
        executor.set_input("learning_rate", 1e-3f);
        executor.set_input("step", static_cast<float>(++num_steps_));
      }
      executor.run();
    }
  }

  Session session_;
  std::optional<StepProfile> profile_;  // once the clock runs
  int num_steps_ = 0;
};

void time_steps(std::vector<std::string> arguments) {
  const int num_warmup_steps = take_option(arguments, "warmup", 2);
  const int num_timed_steps = take_option(arguments, "steps", 7);
  const bool is_balanced = take_option(arguments, "balanced", 0) != 0;
  if (arguments.empty() || num_timed_steps == 0) {
    throw config_error(
        "usage: bench_step [warmup=2] [steps=7] [balanced=0] CONFIG [key=value ...]");
  }
  MpiSession mpi;
  {
    const Config config = load_bench_config(arguments);
    StepBench bench(config, mpi, session_options(config, is_balanced));
    const nlohmann::json result = bench.run(num_warmup_steps, num_timed_steps);
    if (mpi.world().rank() == 0) std::cout << result << std::endl;
  }
  mpi.finish();
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  return caravan::run_bench("bench_step", argc, argv, caravan::time_steps);
}
