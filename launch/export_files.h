// What stands beside the weights in an exported folder: config.json, generation_config.json, the
// tokenizer and licences. Most are passed on as they came; what a model that was trained here never
// had is made.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "checkpoint/assets.h"
#include "checkpoint/safetensors_writer.h"
#include "launch/model_source.h"

namespace caravan {

struct ExportFiles {
  std::map<std::string, std::string> texts;  // content by name
  std::vector<Asset> copies;
  std::vector<std::string> notes;  // what is missing
};

// `tokenizer`: a file or folder that replaces the tokenizer of the checkpoint; "": none does.
ExportFiles export_files(const ModelSource& source, const std::string& tokenizer,
                         SafetensorsDType dtype);

// Writes them, and the index of the weights, into `folder`, durably.
void write_export_files(const ExportFiles& files, const SafetensorsPlan& plan,
                        const std::string& folder);

}  // namespace caravan
