// Times training steps on synthetic tokens: no data files, no checkpoints, no log.
//   bench_step CONFIG [key=value ...]       also under mpirun
// Prints one JSON line on rank 0: tokens/s, the median step, time by op family (of one extra run,
// where each op is timed by itself), bytes planned and held.
#include <algorithm>
#include <chrono>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/config.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
#include "launch/session.h"
#include "optim/lr_schedule.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

constexpr int kWarmupSteps = 2;
constexpr int kTimedSteps = 7;

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

class StepBench {
 public:
  StepBench(const Config& config, MpiSession& mpi)
      : session_(config, mpi, {.on_node = [this](const Node& node, double seconds) {
                   if (profiling_) families_[std::string(family(node.op))] += seconds * 1e3;
                 }}) {
    initialize_parameters(session_.plan(), session_.mesh(), session_.arena(),
                          static_cast<uint64_t>(config.train.seed), session_.num_threads(),
                          session_.progress());
  }

  nlohmann::json run() {
    std::vector<double> times;
    for (int i = 0; i < kWarmupSteps + kTimedSteps; ++i) {
      session_.world().barrier();
      const auto start = std::chrono::steady_clock::now();
      step();
      if (i >= kWarmupSteps) times.push_back(milliseconds_since(start));
    }
    profiling_ = true;
    step();
    std::ranges::nth_element(times, times.begin() + kTimedSteps / 2);
    const double step_ms = times[kTimedSteps / 2];
    const Config& config = session_.config();
    const auto tokens =
        static_cast<double>(config.train.global_batch_size * config.data.sequence_len);
    return {{"tok_s", tokens / step_ms * 1e3},
            {"step_ms", step_ms},
            {"families", families_},
            {"planned_bytes", session_.plan().arena_bytes()},
            {"peak_rss_bytes", peak_resident_bytes()},
            {"loss", session_.executor("update").output("loss")},
            {"parameters", num_parameters(session_.plan())}};
  }

 private:
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
  bool profiling_ = false;
  std::map<std::string, double> families_;  // milliseconds
  int num_steps_ = 0;
};

int main_of_bench(int argc, char** argv) {
  if (argc < 2) throw config_error("usage: bench_step CONFIG [key=value ...]");
  MpiSession mpi;
  const std::vector<std::string> overrides(argv + 2, argv + argc);
  Config config = load_config(argv[1], overrides);
  if (config.model.vocab_size == 0) config.model.vocab_size = 4096;
  {
    StepBench bench(config, mpi);
    const nlohmann::json result = bench.run();
    if (mpi.world().rank() == 0) std::cout << result << std::endl;
  }
  mpi.finish();
  return 0;
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  try {
    return caravan::main_of_bench(argc, argv);
  } catch (const caravan::Error& error) {
    std::cerr << "bench_step: " << error.what() << std::endl;
    return static_cast<int>(error.code());
  }
}
