// `caravan train`: trains, resumes, or says that the run is done.
#pragma once

namespace CLI {
class App;
}

namespace caravan {

// Adds `train` to `app`; parsing runs it.
void add_train_command(CLI::App& app);

}  // namespace caravan
