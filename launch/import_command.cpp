#include "launch/import_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "checkpoint/async_save.h"
#include "data/durable_file.h"
#include "data/work_folder.h"
#include "launch/clock.h"
#include "launch/log.h"
#include "launch/logits_run.h"
#include "launch/model_source.h"
#include "launch/reference_logits.h"
#include "launch/run_state.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

using Rows = std::vector<std::pair<std::string, std::string>>;

constexpr int64_t kFewTokens = 2;  // of a plan whose forward pass is not run

ModelSource open_folder(const ImportRequest& request) {
  ModelSource source(request.folder, request.ignored_keys);
  if (source.kind() == ModelSource::Kind::hugging_face) return source;
  throw config_error(
      absl::StrFormat("%s: is a checkpoint already; train from it with model.init_from=%s",
                      source.path(), source.path()));
}

void compare_with_reference(const ImportRequest& request, ReferenceLogits& reference,
                            LogitsRun& run, Rows& rows) {
  const LogitsDifference difference = reference.compare(run);
  rows.emplace_back("logits",
                    absl::StrFormat("%d tokens, at most %.3g from %s (the largest logit is %.4g)",
                                    reference.num_tokens(), difference.largest, request.reference,
                                    difference.largest_logit));
  if (difference.largest <= request.tolerance) return;
  throw checkpoint_error(absl::StrFormat(
      "%s: logits differ by up to %g (token %d), more than --tolerance %g; was it made from other "
      "weights, or in a narrower type than float32?",
      request.reference, difference.largest, difference.token, request.tolerance));
}

// A name that no other import has.
std::string new_name(Communicator& world) {
  const auto microseconds = static_cast<uint64_t>(unix_seconds() * 1e6);
  return gather_strings(world, absl::StrFormat("%016x", microseconds))[0];
}

// Into a folder that is locked while it is written, so that neither a second import nor what is
// left of one that was killed ends up under the name of the output.
SaveResult save(const ImportRequest& request, const ModelSource& source, Session& session) {
  std::optional<WorkFolder> work;  // of rank 0
  if (session.is_first_rank()) work.emplace(request.output);
  const Mesh& mesh = session.mesh();
  SaveRequest save;
  save.folder = gather_strings(session.world(), work ? work->path() : "")[0];
  save.name = "checkpoint";
  save.header.run_id = "import-" + new_name(session.world());
  const std::string model = to_yaml(source.model());
  save.header.config_hash = absl::StrFormat("%016x", stable_hash(model));
  save.header.tool_version = CARAVAN_VERSION;
  for (const Axis axis : kAxes) save.header.layout[std::string(name(axis))] = mesh.size(axis);
  save.header.layout["zero"] = session.config().parallel.zero;
  save.header.texts[kModelText] = model;
  save.shards = shards_to_save(session.plan(), mesh, session.arena());
  if (session.is_first_rank()) save.assets = source.assets();
  WriterThread writer;
  AsyncSave saving(
      session.world(), writer, {}, [] {},
      [&session](void* host, const void* live, int64_t bytes) {
        session.backend().copy_out_settled(host, live, bytes);
      });
  saving.begin(std::move(save));
  SaveResult result = saving.finish();
  if (!result.error.empty()) throw checkpoint_error(result.error);
  const std::string output = fs::absolute(fs::path(request.output + "/").parent_path()).string();
  if (work) rename_durably(result.saved.path, output, ExitCode::checkpoint);
  result.saved.path = output;
  return result;
}

// The most that a rank read, in words: "2.1 GiB, 100.0 % of its share".
std::string describe_reading(Session& session, const WeightSource& weights) {
  const int64_t share = share_bytes(session.plan(), session.mesh(), weights);
  const std::array<int64_t, 2> mine = {weights.bytes_read(), share};
  std::vector<std::array<int64_t, 2>> all(static_cast<size_t>(session.world().size()));
  session.world().all_gather(&mine, all.data(), sizeof(mine));
  double worst = 0;
  int64_t most = 0;
  for (const auto& [read, wanted] : all) {
    most = std::max(most, read);
    if (wanted > 0)
      worst = std::max(worst, static_cast<double>(read) / static_cast<double>(wanted));
  }
  return absl::StrFormat("%s, %.1f %% of its share", format_bytes(most), worst * 100);
}

}  // namespace

void import_model(const ImportRequest& request) {
  MpiSession mpi;
  const ModelSource source = open_folder(request);
  // Now, and not after hours of reading: whether it can be written.
  if (mpi.world().rank() == 0) WorkFolder unused(request.output);
  std::optional<ReferenceLogits> reference;
  if (!request.reference.empty()) reference.emplace(request.reference, source.model());
  std::vector<std::string> notes;
  const std::unique_ptr<WeightSource> weights =
      source.open_weights(source.model(), mpi.world().rank() == 0, notes);
  LogitsRun run(logits_config({.model = source.model(),
                               .num_tokens = reference ? reference->sequence_len() : kFewTokens,
                               .overrides = request.overrides},
                              mpi.world().size()),
                mpi);
  Session& session = run.session();
  run.load(*weights);
  Rows rows = {{"model", source.description()},
               {"parameters", format_parameters(num_parameters(session.plan()))},
               {"mesh", describe_mesh(session.config(), session.mesh())},
               {"read per rank", describe_reading(session, *weights)}};
  if (reference) compare_with_reference(request, *reference, run, rows);
  const SaveResult saved = save(request, source, session);
  rows.emplace_back("memory per rank", absl::StrFormat("%s planned, %s measured at most",
                                                       format_bytes(session.planned_bytes()),
                                                       format_bytes(session.peak_used_bytes())));
  rows.emplace_back("checkpoint", absl::StrFormat("%s, %s", saved.saved.path,
                                                  format_bytes(saved.saved.size_bytes)));
  if (session.is_first_rank()) {
    Console console(console_options(1));
    for (const std::string& note : notes) console.line("note: " + note);
    console.table(rows);
    console.line(
        absl::StrFormat("next: train from it with  model: {init_from: %s}", saved.saved.path));
  }
  mpi.finish();
}

void add_import_command(CLI::App& app) {
  auto request = std::make_shared<ImportRequest>();
  CLI::App* command = app.add_subcommand(
      "import", "make a checkpoint of a Hugging Face folder; alone, under mpirun or under srun");
  command->add_option("folder", request->folder, "with config.json and *.safetensors")->required();
  command->add_option("overrides", request->overrides,
                      "parallel.tp=2 and the like: how processes share the weights");
  command->add_option("--output", request->output, "folder of the checkpoint")->required();
  CLI::Option* reference =
      command->add_option("--reference", request->reference,
                          ".npz with input_ids and logits that the model gave elsewhere: compares");
  command->add_option("--tolerance", request->tolerance, "of --reference, for each logit [0.001]")
      ->needs(reference)
      ->check(CLI::Range(0.0, 1e9));
  command->add_option("--ignore-key", request->ignored_keys,
                      "a key of config.json that is not known here and changes nothing");
  command->callback([request] { import_model(*request); });
}

}  // namespace caravan
