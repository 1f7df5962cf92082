#include "checkpoint/writer.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <map>

#include "checkpoint/directory.h"
#include "checkpoint/posix_file.h"
#include "data/durable_file.h"

namespace caravan {
namespace {

namespace fs = std::filesystem;

std::string temporary_path(const SaveRequest& request) {
  return request.folder + "/" +
         temporary_folder_name(request.header.step, request.header.run_id + "-" + request.attempt);
}

// Each new folder is made durable in its parent, from the outermost one inwards. Other ranks make
// the same ones.
void make_folders(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  if (folder.has_relative_path()) make_folders(folder.parent_path());
  fs::create_directory(folder, error);
  if (error) {
    throw checkpoint_error(absl::StrFormat("%s: cannot make the folder: %s", folder.string(),
                                           errno_text(error.value())));
  }
  sync_folder(folder.parent_path().string(), ExitCode::checkpoint);
}

// The reports of all ranks as one manifest; an error when one of them failed.
Manifest merge(const CheckpointHeader& header, std::span<const std::string> reports) {
  Manifest manifest{.header = header, .files = {}, .tensors = {}};
  std::map<std::string, TensorRecord> tensors;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    const RankReport report = decode_rank_report(reports[rank], absl::StrFormat("rank %d", rank));
    if (!report.error.empty()) {
      throw checkpoint_error(absl::StrFormat("rank %d: %s", rank, report.error));
    }
    if (!report.file.name.empty()) manifest.files.push_back(report.file);
    std::ranges::copy(report.assets, std::back_inserter(manifest.assets));
    for (const TensorRecord& tensor : report.tensors) {
      const auto [place, is_new] = tensors.try_emplace(tensor.name, tensor);
      if (is_new) continue;
      TensorRecord& merged = place->second;
      check(merged.dtype == tensor.dtype && merged.shape == tensor.shape,
            "rank %d gives tensor %s as %s%s, others as %s%s", rank, tensor.name,
            name(tensor.dtype), to_string(tensor.shape), name(merged.dtype),
            to_string(merged.shape));
      merged.shards.insert(merged.shards.end(), tensor.shards.begin(), tensor.shards.end());
    }
  }
  for (auto& [name, tensor] : tensors) manifest.tensors.push_back(std::move(tensor));
  return manifest;
}

// Fills and writes the manifest and gives the folder its final name. Returns the name that replaced
// content now has, "" when there was none.
std::string publish(const SaveRequest& request, const std::string& path,
                    std::span<const std::string> reports, Manifest& manifest) {
  const std::string temporary = temporary_path(request);
  try {
    manifest = merge(request.header, reports);
    if (manifest.header.unix_time == 0) manifest.header.unix_time = std::time(nullptr);
    validate(manifest, "checkpoint to be written");
    write_file_durably(temporary + "/" + kManifestName, encode(manifest), ExitCode::checkpoint);
    return publish_folder(temporary, path);
  } catch (...) {
    std::error_code ignored;  // the first error is the one to report
    fs::remove_all(temporary, ignored);
    throw;
  }
}

}  // namespace

std::string checkpoint_path(const SaveRequest& request) {
  return request.folder + "/" +
         (request.name.empty() ? step_folder_name(request.header.step) : request.name);
}

std::string write_rank(const SaveRequest& request, int rank, int num_ranks) {
  try {
    const std::string temporary = temporary_path(request);
    make_folders(fs::absolute(temporary));
    RankReport report =
        write_rank_file(temporary, rank_file_name(rank, num_ranks), request.shards, request.source);
    report.assets = copy_assets(request.assets, temporary);
    return encode(report);
  } catch (const std::exception& error) {
    RankReport failed;
    failed.error = *error.what() == '\0' ? "unknown error" : error.what();
    return encode(failed);
  }
}

SavedCheckpoint commit_save(const SaveRequest& request, std::span<const std::string> reports) {
  const std::string path = checkpoint_path(request);
  Manifest manifest;
  const std::string replaced = publish(request, path, reports, manifest);
  sync_folder(request.folder, ExitCode::checkpoint);
  std::error_code ignored;  // a leftover is cleaned at the next start
  if (!replaced.empty()) fs::remove_all(replaced, ignored);
  return {path, total_bytes(manifest), apply_limit(request.folder, request.save_total_limit, path)};
}

}  // namespace caravan
