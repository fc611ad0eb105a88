// pull and models: what is in the model store.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/gateway_client.h"
#include "base/json.h"
#include "fetch/pull.h"

namespace tessera::app {
namespace {

fetch::ModelStore open_store() {
  return {std::filesystem::path(tessera_home()) / "models"};
}

struct PullOptions {
  std::string name;
  std::string hf_endpoint = "https://huggingface.co";
  std::string hf_token;
  template <typename V>
  void fields(V& v) {
    v("=NAME", name, "ORG/NAME[@REVISION][:FILE] of the hub, or a short name of the catalogue");
    v("hf-endpoint", hf_endpoint, "the hub (also HF_ENDPOINT)");
    v("hf-token", hf_token, "token for gated models (also HF_TOKEN)");
  }
};

// A bar on a terminal; elsewhere one line a file.
class BarProgress final : public fetch::Progress {
 public:
  void on_file(const std::string& name, uint64_t total, uint64_t done) override {
    const auto now = std::chrono::steady_clock::now();
    if (!terminal_) {
      if (name != last_name_) std::fprintf(stderr, "%s (%s)\n", name.c_str(), format_bytes(total).c_str());
      last_name_ = name;
      return;
    }
    const bool whole = total > 0 && done >= total;
    if (!whole && name == last_name_ && now - last_ < std::chrono::milliseconds(100)) return;
    if (name != last_name_) {
      start_ = now;
      start_bytes_ = done;
    }
    last_name_ = name;
    last_ = now;
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const double rate = seconds > 0.2 ? static_cast<double>(done - start_bytes_) / seconds : 0;
    char bar[25] = "........................";
    for (uint64_t i = 0; total > 0 && i < 24 * done / total && i < 24; ++i) bar[i] = '#';
    std::fprintf(stderr, "\r%-40.40s [%s] %s of %s %s/s   %s", name.c_str(), bar, format_bytes(done).c_str(),
                 format_bytes(total).c_str(), format_bytes(static_cast<uint64_t>(rate)).c_str(),
                 whole ? "\n" : "");
  }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
  std::string last_name_;
  std::chrono::steady_clock::time_point last_{}, start_{};
  uint64_t start_bytes_ = 0;
};

int pull(const PullOptions& options) {
  if (options.name.empty())
    return report(invalid_argument("say what to pull: tessera pull NAME, for example smollm2:135m"));
  const fetch::ModelStore store = open_store();
  BarProgress progress;
  fetch::PullOptions pull;
  pull.hf_endpoint = environment("HF_ENDPOINT").value_or(options.hf_endpoint);
  pull.hf_token = environment("HF_TOKEN").value_or(options.hf_token);
  pull.progress = &progress;
  auto path = fetch::pull_model(options.name, store, fetch::Catalogue::built_in(), pull);
  if (!path.ok()) {
    report(path.status());
    return kFailed;
  }
  std::printf("%s\n", path->c_str());
  return kDone;
}

struct ModelsOptions : ClusterOptions {
  std::vector<std::string> words;
  template <typename V>
  void fields(V& v) {
    v("=ACTION", words, "nothing to list, or: rm NAME; of a running gateway: served, load NAME, unload NAME");
    ClusterOptions::fields(v);
  }
};

int list_models(const fetch::ModelStore& store, bool json) {
  auto models = store.list();
  if (!models.ok()) return report(models.status());
  const fetch::Catalogue catalogue = fetch::Catalogue::built_in();
  OrderedJson here = OrderedJson::array(), known = OrderedJson::array();
  if (!json) std::printf("%-40s %10s  %-12s %s\n", "NAME", "SIZE", "FORMAT", "PATH");
  for (const fetch::StoredModel& model : *models) {
    here.push_back({{"name", model.name},
                    {"bytes", model.bytes()},
                    {"format", model.format},
                    {"path", model.path.string()}});
    if (!json)
      std::printf("%-40s %10s  %-12s %s\n", model.name.c_str(), format_bytes(model.bytes()).c_str(),
                  model.format.c_str(), model.path.c_str());
  }
  for (const fetch::CatalogueEntry& entry : catalogue.entries()) {
    known.push_back({{"name", entry.name}, {"bytes", entry.bytes}, {"licence", entry.licence}});
    if (!json && !store.find(entry.name).ok())
      std::printf("%-40s %10s  %-12s tessera pull %s\n", entry.name.c_str(),
                  format_bytes(entry.bytes).c_str(), "not here", entry.name.c_str());
  }
  if (json) std::printf("%s\n", dump_json(OrderedJson{{"models", here}, {"catalogue", known}}).c_str());
  return kDone;
}

int list_served(const ModelsOptions& options) {
  auto answer = ask_gateway(options, "GET", "/api/v1/models");
  if (!answer.ok()) return report(answer.status());
  if (options.json) {
    std::printf("%s\n", dump_json(*answer).c_str());
    return kDone;
  }
  for (const Json& model : (*answer)["models"])
    std::printf(
        "%-40s %s\n", model.value("name", "").c_str(),
        model.value("covered", false) ? "ready" : model.value("reason", "no worker hosts it").c_str());
  return kDone;
}

int models(const ModelsOptions& options) {
  const fetch::ModelStore store = open_store();
  if (options.words.empty() || (options.words.size() == 1 && options.words[0] == "list"))
    return list_models(store, options.json);
  if (options.words.size() == 2 && options.words[0] == "rm") {
    Status status = store.remove(options.words[1]);
    return status.ok() ? kDone : report(status);
  }
  if (options.words.size() == 1 && options.words[0] == "served") return list_served(options);
  if (options.words.size() == 2 && (options.words[0] == "load" || options.words[0] == "unload")) {
    const std::string& name = options.words[1];
    auto answer = options.words[0] == "load"
                      ? ask_gateway(options, "POST", "/api/v1/models", Json{{"model", name}})
                      : ask_gateway(options, "DELETE", "/api/v1/models/" + name);
    if (!answer.ok()) return report(answer.status());
    std::printf("%s %s\n", name.c_str(), options.words[0] == "load" ? "loads" : "is no longer served");
    return kDone;
  }
  return report(
      invalid_argument("tessera models, tessera models rm NAME, or of a running gateway: "
                       "tessera models served, load NAME, unload NAME"));
}

}  // namespace

Command pull_command() {
  auto options = std::make_shared<PullOptions>();
  return {"pull", "brings a model here: resumable, every file checked",
          "  tessera pull smollm2:135m\n  tessera pull HuggingFaceTB/SmolLM2-135M-Instruct",
          fields_of(*options), [options] { return pull(*options); }};
}

Command models_command() {
  auto options = std::make_shared<ModelsOptions>();
  return {"models", "what is in the model store, and what a gateway serves",
          "  tessera models\n  tessera models rm smollm2:135m\n  tessera models load smollm2:135m",
          fields_of(*options), [options] { return models(*options); }};
}

}  // namespace tessera::app
