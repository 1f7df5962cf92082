// Names of files in a folder that a user brought (weights, config.json, tokenizers), as paths that
// may be opened: a file or an index in it must not lead to other files of this machine.
//
// A link is followed when its target lies in the folder, or where the cache of Hugging Face has it:
// FOLDER/snapshots/REVISION/name -> FOLDER/blobs/HASH. No state, any thread.
#pragma once

#include <optional>
#include <string>

#include "runtime/error.h"

namespace caravan {

// No separator, nothing that a terminal or a log would act on, no name of a folder.
bool is_file_name(const std::string& name);

// The path, free of links, of what `folder` has under `name`. An error with that exit code when
// `name` is not a plain file name, when there is no such file, or when it leads outside.
std::string resolve_inside(const std::string& folder, const std::string& name,
                           ExitCode error_code = ExitCode::checkpoint);

// The same, but nothing when the folder has no such name. A link to nowhere is an error.
std::optional<std::string> find_inside(const std::string& folder, const std::string& name,
                                       ExitCode error_code = ExitCode::checkpoint);

}  // namespace caravan
