#include "launch/export_command.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <optional>

#include "checkpoint/hf_writer.h"
#include "data/durable_file.h"
#include "data/work_folder.h"
#include "launch/export_files.h"
#include "launch/log.h"
#include "launch/logits_run.h"
#include "launch/model_source.h"
#include "launch/parity.h"
#include "runtime/error.h"
#include "runtime/memory_limit.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

SafetensorsDType dtype_of(const ExportRequest& request, const ModelSource& source) {
  if (request.dtype == "float32") return SafetensorsDType::f32;
  if (request.dtype == "bfloat16") return SafetensorsDType::bf16;
  if (request.dtype != "auto") {
    throw config_error(
        absl::StrFormat("--dtype %s: expected auto, float32 or bfloat16", request.dtype));
  }
  return source.hf().torch_dtype == "bfloat16" ? SafetensorsDType::bf16 : SafetensorsDType::f32;
}

int64_t shard_bytes(const ExportRequest& request) {
  if (const auto bytes = parse_bytes(request.max_shard_size); bytes && *bytes > 0) return *bytes;
  throw config_error(
      absl::StrFormat("--max-shard-size %s: expected a size such as 5GiB", request.max_shard_size));
}

void check_request(const ExportRequest& request) {
  if (request.format != "hf") {
    throw config_error(absl::StrFormat("--format %s: this version writes hf only", request.format));
  }
  if (request.parity_tokens < 0 || request.parity_tokens == 1) {
    throw config_error(absl::StrFormat(
        "--parity-tokens %d: give 2 or more, or 0 to compare no logits", request.parity_tokens));
  }
}

// What this rank and all others say about the shards that they wrote.
std::map<std::string, uint32_t> gather_checksums(Communicator& world,
                                                 const std::map<std::string, uint32_t>& mine) {
  std::map<std::string, uint32_t> all;
  for (const std::string& text : gather_strings(world, encode_checksums(mine))) {
    all.merge(decode_checksums(text));
  }
  return all;
}

// The logits of the checkpoint against those of the files in `folder`.
void compare_logits_of(const ExportRequest& request, const ModelSource& source,
                       const std::string& folder, MpiSession& mpi, Parity& parity) {
  const ModelConfig& model = source.model();
  parity.num_tokens = std::min(request.parity_tokens, model.max_position_embeddings);
  LogitsRun run(
      logits_config(
          {.model = model, .num_tokens = parity.num_tokens, .overrides = request.overrides},
          mpi.world().size()),
      mpi);
  const std::vector<int32_t> tokens = probe_tokens(model.vocab_size, parity.num_tokens);
  std::vector<std::string> notes;
  const auto logits_of = [&](const ModelSource& from) {
    run.load(*from.open_weights(model, false, notes));
    return run.compute(tokens);
  };
  const std::vector<float> expected = logits_of(source);
  const std::vector<float> found = logits_of(ModelSource(folder));
  parity.logits = compare_logits(run.session().world(), found, expected, run.num_columns());
  if (parity.dtype == SafetensorsDType::f32 && parity.logits->largest != 0) {
    throw internal_error(
        absl::StrFormat("the exported weights are those of the checkpoint, yet logits differ by %g",
                        parity.logits->largest));
  }
}

void show(const ExportRequest& request, const ModelSource& source, const SafetensorsPlan& plan,
          const Parity& parity, const std::vector<std::string>& notes) {
  Console console(console_options(1));
  for (const std::string& note : notes) console.line("note: " + note);
  const std::string logits =
      parity.logits ? absl::StrFormat(
                          "%d tokens, at most %.3g from the checkpoint's (the largest "
                          "logit is %.4g)",
                          parity.num_tokens, parity.logits->largest, parity.logits->largest_logit)
                    : std::string("not compared");
  console.table({{"model", source.description()},
                 {"weights", absl::StrFormat("%d tensors, %s, %d file%s of %s in all",
                                             parity.checksums.size(), dtype_name(parity.dtype),
                                             plan.shards.size(), plan.shards.size() == 1 ? "" : "s",
                                             format_bytes(plan.total_bytes))},
                 {"compared", "every element with the checkpoint: the same"},
                 {"logits", logits},
                 {"folder", request.output}});
}

}  // namespace

void export_model(const ExportRequest& request) {
  check_request(request);
  MpiSession mpi;
  Communicator& world = mpi.world();
  const ModelSource source(request.checkpoint);
  std::vector<std::string> notes;
  const SafetensorsDType dtype = dtype_of(request, source);
  const ExportFiles files = export_files(source, request.tokenizer, dtype);
  const std::unique_ptr<WeightSource> weights = source.open_weights(source.model(), false, notes);
  std::optional<WorkFolder> folder;  // of rank 0
  if (world.rank() == 0) folder.emplace(request.output);
  const std::string path = gather_strings(world, folder ? folder->path() : "")[0];

  HfWriter writer(hf_tensors(source.model(), ""), dtype, shard_bytes(request), *weights);
  const Worker worker{world.rank(), world.size()};
  writer.write(path, worker);
  Parity parity{.dtype = dtype, .checksums = gather_checksums(world, writer.verify(path, worker))};
  if (world.rank() == 0) write_export_files(files, writer.plan(), path);
  world.barrier();
  if (request.parity_tokens > 0) compare_logits_of(request, source, path, mpi, parity);
  if (folder) {
    write_file_durably(folder->file(kParityName), encode(parity), ExitCode::checkpoint);
    folder->publish(ExitCode::checkpoint);
    notes.insert(notes.end(), files.notes.begin(), files.notes.end());
    show(request, source, writer.plan(), parity, notes);
  }
  mpi.finish();
}

void add_export_command(CLI::App& app) {
  auto request = std::make_shared<ExportRequest>();
  CLI::App* command = app.add_subcommand(
      "export", "write a checkpoint as a folder that transformers and others load");
  command->add_option("checkpoint", request->checkpoint, "a checkpoint, or a run: its newest")
      ->required();
  command->add_option("overrides", request->overrides,
                      "parallel.tp=2 and the like: how processes share the forward pass");
  command->add_option("--output", request->output, "folder to write")->required();
  command->add_option("--format", request->format, "hf");
  command->add_option("--dtype", request->dtype,
                      "auto (as it was imported, else float32), float32 or bfloat16");
  command->add_option("--max-shard-size", request->max_shard_size, "of a file of weights [5GiB]");
  command->add_option("--tokenizer", request->tokenizer,
                      "a tokenizer's file or folder; left out: that of the checkpoint");
  command->add_option("--parity-tokens", request->parity_tokens,
                      "tokens on which logits are compared, 0: none [64]");
  command->callback([request] { export_model(*request); });
}

}  // namespace caravan
