// bench_jobs DATABASE SECONDS CLIENTS ROWS: how many jobs a second become durable, and whether ROWS ended
// ones in the table slow the next. DATABASE: a folder for a SQLite file, or "postgres" for a server of its
// own. Each client creates the next job when the last is acknowledged, through the service that the routes
// use. Prints one line of JSON. See bench/control.sh.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <nlohmann/json.hpp>
#include <thread>

#include "gateway/job_service.h"
#include "store/sqlite_database.h"
#include "store/test_servers.h"

namespace tessera::gateway {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

control::JobRequest request() {
  control::JobRequest r;
  r.tenant = "bench";
  r.type = "llm";
  r.params = R"({"messages":[{"role":"user","content":"Why is the sky blue?"}],"max_tokens":64})";
  return r;
}

struct Load {
  JobService& service;
  Clock::time_point deadline;
  std::atomic<int64_t> acknowledged = 0, failed = 0;
  std::atomic<int> clients = 0;

  void next() {
    if (Clock::now() >= deadline) {
      --clients;
      return;
    }
    service.create({*JobService::draw_id(), request()}, [this](const Result<control::Job>& made) {
      ++(made.ok() ? acknowledged : failed);
      next();
    });
  }
};

// Jobs a second; ends the program if one failed.
double creation_rate(JobService& service, double seconds, int clients) {
  const auto start = Clock::now();
  Load load{service,
            start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds))};
  load.clients = clients;
  for (int i = 0; i < clients; ++i) load.next();
  while (load.clients > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const double took = seconds_since(start);
  if (load.failed > 0) {
    std::fprintf(stderr, "%lld jobs failed\n", static_cast<long long>(load.failed));
    std::exit(1);
  }
  return static_cast<double>(load.acknowledged) / took;
}

// Milliseconds to take a job and to finish it, in the median.
double cycle_ms(control::Jobs& jobs, int count) {
  std::vector<double> all;
  control::Jobs::Taker taker;
  taker.owner = "bench";
  for (int i = 0; i < count; ++i) {
    const auto start = Clock::now();
    const auto taken = jobs.take(taker, 1);
    if (!taken.ok() || taken->empty()) break;
    const control::Job& job = (*taken)[0];
    (void)jobs.finish({{job.id, job.owner, job.epoch, control::JobOutcome::kDone, R"({"response":"x"})"}});
    all.push_back(seconds_since(start) * 1e3);
  }
  std::sort(all.begin(), all.end());
  return all.empty() ? 0 : all[all.size() / 2];
}

void must(const Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.to_string().c_str());
  std::exit(1);
}

void add_ended(control::Jobs& jobs, store::Database& database, int64_t rows) {
  constexpr int64_t kBatch = 5000;
  for (int64_t done = 0; done < rows; done += kBatch) {
    std::vector<control::Jobs::NewJob> batch;
    for (int64_t i = done; i < std::min(rows, done + kBatch); ++i)
      batch.push_back({"old_" + std::to_string(i), request()});
    must(jobs.create(batch).status());
    must(database
             .execute("UPDATE jobs SET state = 2, ended_ms = created_ms + 100, started_ms = created_ms, "
                      "result = '{\"response\":\"x\"}' WHERE state = 0 AND tenant = 'bench'")
             .status());
  }
}

int run(const std::string& where, double seconds, int clients, int64_t rows) {
  std::unique_ptr<store::TestPostgres> server;
  std::unique_ptr<store::Database> database;
  if (where == "postgres") {
    server = std::make_unique<store::TestPostgres>();
    if (!server->missing().empty()) must(unavailable(server->missing()));
    auto opened = store::open_postgres(server->fresh());
    must(opened.status());
    database = std::move(*opened);
  } else {
    auto opened = store::open_sqlite(std::filesystem::path(where) / "bench.db");
    must(opened.status());
    database = std::move(*opened);
  }
  SystemClock clock;
  obs::Metrics metrics;
  api::ModelSet models;
  auto jobs = control::Jobs::open(*database, clock);
  must(jobs.status());
  JobServiceOptions options;
  options.owner = "bench";
  options.slots = 0;  // it only takes jobs in
  JobService service(options, **jobs, models, metrics, clock);
  Json result{
      {"database", where == "postgres" ? "postgres" : "sqlite"}, {"clients", clients}, {"rows", rows}};
  const double empty = creation_rate(service, seconds, clients);
  const auto held = database->execute("SELECT count(*) FROM jobs WHERE tenant = 'bench'");
  must(held.status());
  result["jobs_per_s"] = empty;
  result["jobs"] = store::integer_at(held->rows.at(0), 0);
  // As a server's own maintenance does within a minute: a plan made for an empty table would be measured
  // else.
  must(database->script("ANALYZE jobs"));
  result["cycle_ms"] = cycle_ms(**jobs, 200);
  if (rows > 0) {
    add_ended(**jobs, *database, rows);
    must(database->script("ANALYZE jobs"));
    result["jobs_per_s_full"] = creation_rate(service, seconds, clients);
    result["cycle_ms_full"] = cycle_ms(**jobs, 200);
  }
  std::printf("%s\n", dump_json(result).c_str());
  return 0;
}

}  // namespace
}  // namespace tessera::gateway

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: bench_jobs FOLDER|postgres SECONDS CLIENTS ROWS\n");
    return 2;
  }
  return tessera::gateway::run(argv[1], std::atof(argv[2]), std::atoi(argv[3]), std::atoll(argv[4]));
}
