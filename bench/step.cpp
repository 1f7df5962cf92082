// Times training steps on synthetic tokens: no data files, no checkpoints, no log.
//   bench_step [warmup=2] [steps=7] [balanced=0] [profile=1] CONFIG [key=value ...]
// balanced=1: routers deal tokens out to experts in turn, whatever their logits say.
// Prints one JSON line on rank 0: tokens/s, the median step, time by kind of node, bytes planned
// and held. Also under mpirun.
// On the CPU nodes are timed in the same steps (under MPI a collective counts where it is waited
// for); on a GPU in steps of their own, each node alone, less what waiting for an empty one takes.
#include <chrono>
#include <optional>

#include "bench/bench_main.h"
#include "bench/profile.h"
#include "launch/device.h"
#include "launch/process_memory.h"
#include "launch/run_state.h"
#include "launch/session.h"
#include "runtime/cuda/cuda.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_between(Clock::time_point start, Clock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

// What is said about a run, beside its configuration.
struct StepOptions {
  int num_warmup_steps = 2;
  int num_timed_steps = 7;
  bool is_balanced = false;
  bool has_profile = true;
};

// When the time of a node ends: as the executor says, or when the device has done it.
enum class Timing { none, executor, alone };

// Random tokens, one document per sequence: what all steps train on, made before the clock runs.
class Batch {
 public:
  Batch(const Config& config, int64_t num_tokens, uint64_t seed) : num_tokens_(num_tokens) {
    const RandomStream random(seed, RandomPurpose::test, 0);
    const auto vocab_size = static_cast<uint64_t>(config.model.vocab_size);
    const auto sequence_len = static_cast<uint64_t>(config.data.sequence_len);
    const auto token = [&](uint64_t i) { return random.bits(i) % vocab_size; };
    add("input_ids", token);
    add("targets", [&](uint64_t i) { return token(i + 1); });
    add("positions", [&](uint64_t i) { return i % sequence_len; });
    add("document_start", [](uint64_t) { return uint64_t{0}; });
  }

  void write(Backend& backend, const Executor& executor) const {
    for (const auto& [name, values] : inputs_) {
      backend.copy_in(executor.input(name).data, values.data(),
                      static_cast<int64_t>(values.size() * sizeof(int32_t)));
    }
  }

 private:
  template <typename Element>
  void add(const char* name, const Element& element) {
    std::vector<int32_t>& values = inputs_.emplace_back(name, std::vector<int32_t>()).second;
    for (int64_t i = 0; i < num_tokens_; ++i) {
      values.push_back(static_cast<int32_t>(element(static_cast<uint64_t>(i))));
    }
  }

  int64_t num_tokens_;
  std::vector<std::pair<std::string, std::vector<int32_t>>> inputs_;
};

void deal_out(Backend& backend, const Node& node, std::span<const TensorView> outputs,
              size_t num_experts) {
  if (!std::holds_alternative<Route>(node.op)) return;
  std::vector<int32_t> experts(static_cast<size_t>(outputs[1].size()));
  for (size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<int32_t>(i % num_experts);
  backend.copy_in(outputs[1].data, experts.data(),
                  static_cast<int64_t>(experts.size() * sizeof(int32_t)));
}

class StepBench {
 public:
  StepBench(const Config& config, MpiSession& mpi, const StepOptions& options, Timing timing)
      : options_(options),
        timing_(timing),
        session_(config, mpi, session_options(config)),
        batch_(config, session_.executor("update").input("input_ids").size(),
               static_cast<uint64_t>(session_.mesh().rank)) {
    initialize_parameters(session_.plan(), session_.mesh(), session_.backend(), session_.arena(),
                          static_cast<uint64_t>(config.train.seed), session_.num_threads(),
                          session_.progress());
  }

  nlohmann::json run() {
    for (int i = 0; i < options_.num_warmup_steps; ++i) step();
    if (timing_ != Timing::none) profile_.emplace(session_.plan());
    if (timing_ == Timing::alone) empty_seconds_ = seconds_of_empty_node();
    std::vector<double> times;
    for (int i = 0; i < options_.num_timed_steps; ++i) {
      session_.world().barrier();
      const auto start = Clock::now();
      step();
      times.push_back(1e3 * seconds_between(start, Clock::now()));
      if (profile_) profile_->end_step();
    }
    return result(median(times));
  }

 private:
  nlohmann::json result(double step_ms) {
    const Config& config = session_.config();
    const auto tokens =
        static_cast<double>(config.train.global_batch_size * config.data.sequence_len);
    return {{"tok_s", tokens / step_ms * 1e3},
            {"step_ms", step_ms},
            {"kinds", profile_ ? profile_->kinds() : nlohmann::json::array()},
            {"device", session_.backend().description()},
            {"arena_bytes", session_.plan().arena_bytes()},
            {"planned_bytes", session_.planned_bytes()},
            {"peak_rss_bytes", peak_resident_bytes()},
            {"loss", session_.executor("update").output("loss")},
            {"parameters", num_parameters(session_.plan())}};
  }

  // A hook keeps an executor from using recordings: without a profile there is none.
  SessionOptions session_options(const Config& config) {
    SessionOptions options;
    if (timing_ != Timing::none) {
      options.on_node = [this](const Node& node, double seconds) { time_node(node, seconds); };
    }
    if (options_.is_balanced) {
      options.after_node = [experts = static_cast<size_t>(config.model.num_local_experts)](
                               Backend& backend, const Node& node,
                               std::span<const TensorView> outputs) {
        deal_out(backend, node, outputs, experts);
      };
    }
    return options;
  }

  void time_node(const Node& node, double seconds) {
    if (!profile_) return;
    if (timing_ == Timing::alone) {
      session_.backend().synchronize();
      const auto now = Clock::now();
      seconds = std::max(0.0, seconds_between(last_, now) - empty_seconds_);
      last_ = now;
    }
    profile_->add(node, seconds);
  }

  // What starting a kernel and waiting for it takes when it has nothing to do.
  double seconds_of_empty_node() {
    constexpr int kTimes = 100;
    const Executor& executor = session_.executor("update");
    const std::vector<TensorView> output = {executor.input("learning_rate")};
    const Op op = Fill{1};
    std::vector<double> seconds;
    for (int i = 0; i < kTimes; ++i) {
      session_.backend().synchronize();
      const auto start = Clock::now();
      session_.backend().run(op, {{}, output}, Stream::compute);
      session_.backend().synchronize();
      seconds.push_back(seconds_between(start, Clock::now()));
    }
    return median(seconds);
  }

  void step() {
    const int64_t micro_steps = session_.plan().accumulation_steps;
    for (int64_t micro = 0; micro < micro_steps; ++micro) {
      const bool is_last = micro + 1 == micro_steps;
      Executor& executor = session_.executor(is_last ? "update" : "accumulate");
      batch_.write(session_.backend(), executor);
      if (micro_steps > 1) executor.set_input("keep", micro == 0 ? 0.0f : 1.0f);
      if (is_last) {
        executor.set_input("learning_rate", 1e-3f);
        executor.set_input("step", static_cast<float>(++num_steps_));
      }
      last_ = Clock::now();
      executor.run();
    }
  }

  StepOptions options_;
  Timing timing_;
  Session session_;
  Batch batch_;
  std::optional<StepProfile> profile_;  // once the clock runs
  double empty_seconds_ = 0;
  Clock::time_point last_;  // when the last node was done
  int num_steps_ = 0;
};

// Of the first device. Nothing else may run on it.
int64_t free_device_bytes() {
  const CudaStatus status = examine_cuda();
  return status.devices.empty() ? 0 : status.devices.front().free_bytes;
}

nlohmann::json run_on_cpu(const Config& config, MpiSession& mpi, const StepOptions& options) {
  return StepBench(config, mpi, options, options.has_profile ? Timing::executor : Timing::none)
      .run();
}

nlohmann::json run_on_gpu(const Config& config, MpiSession& mpi, const StepOptions& options) {
  const int64_t free_bytes = free_device_bytes();
  nlohmann::json result;
  {
    StepBench bench(config, mpi, options, Timing::none);
    result = bench.run();
    result["device_bytes"] = free_bytes - free_device_bytes();  // nothing is given back in a run
  }
  if (options.has_profile) {
    result["kinds"] = StepBench(config, mpi, options, Timing::alone).run().at("kinds");
  }
  return result;
}

void time_steps(std::vector<std::string> arguments) {
  StepOptions options;
  options.num_warmup_steps = take_option(arguments, "warmup", options.num_warmup_steps);
  options.num_timed_steps = take_option(arguments, "steps", options.num_timed_steps);
  options.is_balanced = take_option(arguments, "balanced", 0) != 0;
  options.has_profile = take_option(arguments, "profile", 1) != 0;
  if (arguments.empty() || options.num_timed_steps == 0) {
    throw config_error(
        "usage: bench_step [warmup=2] [steps=7] [balanced=0] [profile=1] CONFIG [key=value ...]");
  }
  MpiSession mpi;
  {
    const Config config = load_bench_config(arguments);
    const bool on_gpu = choose_device(config) == DeviceKind::cuda;
    const nlohmann::json result = (on_gpu ? run_on_gpu : run_on_cpu)(config, mpi, options);
    if (mpi.world().rank() == 0) std::cout << result << std::endl;
  }
  mpi.finish();
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  return caravan::run_bench("bench_step", argc, argv, caravan::time_steps);
}
