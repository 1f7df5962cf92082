#include "launch/ckpt_command.h"

#include <CLI/CLI.hpp>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/directory.h"
#include "checkpoint/manifest.h"
#include "launch/log.h"
#include "runtime/error.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

constexpr const char* kRowFormat = "%-10s %15s %9s %11s %6s  %-20s %s\n";

std::string format_age(int64_t seconds) {
  if (seconds < 0) return "-";
  if (seconds < 120) return absl::StrFormat("%ds", seconds);
  if (seconds < 2 * 3600) return absl::StrFormat("%dm", seconds / 60);
  if (seconds < 48 * 3600) return absl::StrFormat("%dh", seconds / 3600);
  return absl::StrFormat("%dd", seconds / 86400);
}

// "dp=2 tp=1"
std::string format_layout(const Manifest& manifest) {
  std::string text;
  for (const auto& [axis, size] : manifest.header.layout) {
    absl::StrAppendFormat(&text, "%s%s=%d", text.empty() ? "" : " ", axis, size);
  }
  return text.empty() ? "-" : text;
}

std::string format_row(const std::string& path, const Manifest& manifest, int64_t unix_time) {
  const CheckpointHeader& header = manifest.header;
  const auto loss = header.scalars.find("loss");
  return absl::StrFormat(kRowFormat, format_count(header.step), format_count(header.tokens),
                         loss == header.scalars.end() ? "-" : absl::StrFormat("%.4f", loss->second),
                         format_bytes(total_bytes(manifest)),
                         format_age(unix_time - header.unix_time), format_layout(manifest),
                         fs::path(path).filename().string());
}

std::string format_time(int64_t unix_time) {
  const std::time_t time = unix_time;
  std::tm parts{};
  if (gmtime_r(&time, &parts) == nullptr) return "-";
  char text[64];
  return std::string(text, std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &parts));
}

void show_tensors(const Manifest& manifest, std::ostream& out) {
  out << absl::StrFormat("\n%-44s %-5s %-18s %11s  %s\n", "tensor", "dtype", "shape", "size",
                         "shards");
  for (const TensorRecord& tensor : manifest.tensors) {
    const int64_t bytes = num_elements(tensor.shape) * size_bytes(tensor.dtype);
    out << absl::StrFormat("%-44s %-5s %-18s %11s  %d\n", tensor.name, name(tensor.dtype),
                           to_string(tensor.shape), format_bytes(bytes), tensor.shards.size());
  }
}

}  // namespace

std::vector<StepFolder> find_checkpoints(const std::string& run_or_folder) {
  fs::path path = fs::path(run_or_folder).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "runs/a/"
  if (!fs::is_directory(path)) {
    throw checkpoint_error(path.string() + ": no such folder; give a run's output_dir");
  }
  if (fs::exists(path / kManifestName)) return {{path.string(), 0}};
  std::vector<StepFolder> found = list_step_folders((path / "checkpoints").string());
  if (found.empty()) found = list_step_folders(path.string());
  return found;
}

void require_checkpoint(const std::string& folder) {
  if (fs::exists(fs::path(folder) / kManifestName)) return;
  throw checkpoint_error(absl::StrFormat(
      "%s: not a checkpoint (no %s); `caravan ckpt ls RUN` lists them", folder, kManifestName));
}

void list_checkpoints(const std::string& run_or_folder, int64_t unix_time, std::ostream& out) {
  const std::vector<StepFolder> found = find_checkpoints(run_or_folder);
  if (found.empty()) {
    out << run_or_folder << ": no checkpoints yet\n";
    return;
  }
  out << absl::StrFormat(kRowFormat, "step", "tokens", "loss", "size", "age", "layout", "folder");
  for (const StepFolder& entry : found) {
    try {
      out << format_row(entry.path, read_committed(entry.path), unix_time);
    } catch (const Error& error) {
      out << "unusable: " << error.what() << "\n";  // the others are still worth seeing
    }
  }
}

void show_checkpoint(const std::string& checkpoint, bool with_tensors, std::ostream& out) {
  require_checkpoint(checkpoint);
  const Manifest manifest = read_committed(checkpoint);
  const CheckpointHeader& header = manifest.header;
  const auto line = [&](std::string_view key, const std::string& value) {
    out << absl::StrFormat("%-14s %s\n", key, value);
  };
  int64_t num_values = 0;
  for (const TensorRecord& tensor : manifest.tensors) num_values += num_elements(tensor.shape);
  line("checkpoint", checkpoint);
  line("step", format_count(header.step));
  line("tokens", format_count(header.tokens));
  line("saved", format_time(header.unix_time));
  line("run", header.run_id);
  line("layout", format_layout(manifest));
  line("config hash", header.config_hash);
  line("written by", "caravan " + header.tool_version);
  line("files",
       absl::StrFormat("%d, %s", manifest.files.size(), format_bytes(total_bytes(manifest))));
  if (!manifest.assets.empty()) {
    line("assets",
         absl::StrJoin(manifest.assets, " ",
                       [](std::string* out, const FileRecord& file) { out->append(file.name); }));
  }
  line("tensors",
       absl::StrFormat("%d, %s values", manifest.tensors.size(), format_count(num_values)));
  for (const auto& [key, value] : header.counters) line(key, format_count(value));
  for (const auto& [key, value] : header.scalars) line(key, absl::StrFormat("%.9g", value));
  if (with_tensors) show_tensors(manifest, out);
}

namespace {

// CLI11 keeps references to the values; the callbacks own them.
using Text = std::shared_ptr<std::string>;

void add_list(CLI::App& command) {
  const Text folder = std::make_shared<std::string>();
  CLI::App* list = command.add_subcommand("ls", "list the checkpoints of a run");
  list->add_option("RUN_OR_DIR", *folder, "output_dir of a run, or a folder of checkpoints")
      ->required();
  list->callback([folder] { list_checkpoints(*folder, std::time(nullptr), std::cout); });
}

void add_ckpt_show(CLI::App& command) {
  const Text checkpoint = std::make_shared<std::string>();
  const auto with_tensors = std::make_shared<bool>(false);
  CLI::App* show = command.add_subcommand("show", "what one checkpoint holds");
  show->add_option("CKPT", *checkpoint, "folder of one checkpoint")->required();
  show->add_flag("--tensors", *with_tensors, "list every tensor");
  show->callback(
      [checkpoint, with_tensors] { show_checkpoint(*checkpoint, *with_tensors, std::cout); });
}

void add_verify(CLI::App& command) {
  const Text folder = std::make_shared<std::string>();
  CLI::App* verify = command.add_subcommand("verify", "read every byte and name all damage");
  verify->add_option("CKPT_OR_RUN", *folder, "one checkpoint, or output_dir of a run")->required();
  verify->callback([folder] { verify_checkpoints(*folder, std::cout); });
}

void add_diff(CLI::App& command) {
  const Text a = std::make_shared<std::string>(), b = std::make_shared<std::string>();
  CLI::App* diff = command.add_subcommand("diff", "what differs between two checkpoints");
  diff->add_option("A", *a, "folder of one checkpoint")->required();
  diff->add_option("B", *b, "folder of the other")->required();
  diff->callback([a, b] { diff_checkpoints(*a, *b, std::cout); });
}

void add_prune(CLI::App& command) {
  const Text run = std::make_shared<std::string>();
  const auto keep = std::make_shared<int64_t>(0);
  const auto dry_run = std::make_shared<bool>(false);
  CLI::App* prune = command.add_subcommand("prune", "delete all but the newest checkpoints");
  prune->add_option("RUN", *run, "output_dir of a run")->required();
  prune->add_option("--keep", *keep, "how many of the newest stay, at least 1")->required();
  prune->add_flag("--dry-run", *dry_run, "say what would be deleted, and delete nothing");
  prune->callback([run, keep, dry_run] { prune_checkpoints(*run, *keep, *dry_run, std::cout); });
}

}  // namespace

void add_ckpt_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("ckpt", "look at checkpoints, compare and prune them");
  command->require_subcommand(1);
  add_list(*command);
  add_ckpt_show(*command);
  add_verify(*command);
  add_diff(*command);
  add_prune(*command);
}

}  // namespace caravan
