// POST /tokenize and /detokenize, and the model list. Pure: a request and the models
// in, an answer out, within what the caller may use; may
// take as long as the text is.
#pragma once

#include <string>

#include "api/caller.h"
#include "api/model_set.h"
#include "net/http.h"

namespace tessera::gateway {

// {prompt | messages, add_special_tokens, add_generation_prompt, return_token_strs} →
// {count, max_model_len, tokens, token_strs}
net::HttpResponse tokenize_route(const std::string& body, const api::Caller& caller,
                                 const api::ModelSet& models);
// {tokens} → {prompt}
net::HttpResponse detokenize_route(const std::string& body, const api::Caller& caller,
                                   const api::ModelSet& models);
net::HttpResponse models_route(const api::Caller& caller, const api::ModelSet& models);
net::HttpResponse model_route(const std::string& id, const api::Caller& caller, const api::ModelSet& models);

}  // namespace tessera::gateway
