#!/usr/bin/env escript
%% erlang.escript - OCSP responder for tests/unit/ocsp-interop.tcl: the ASN.1 and the signatures of Erlang/OTP's
%% public_key behind its httpd (inets).
%%
%% usage: escript erlang.escript DIR PORT (README.md in this folder describes both)
%%
%% Records are written as tuples: their header files are in a package that is not needed otherwise.
%%
%% SPDX-License-Identifier: BSD-3-Clause

-module(ocsp_erlang_responder).
-mode(compile).
-export([main/1, do/1]).

-define(OCSP_BASIC, {1, 3, 6, 1, 5, 5, 7, 48, 1, 1}).

main([Dir, Port]) ->
    {ok, _} = application:ensure_all_started(public_key),
    ok = inets:start(),
    persistent_term:put(dir, Dir),
    {ok, Pid} = inets:start(httpd, [
        {bind_address, {127, 0, 0, 1}},
        {port, list_to_integer(Port)},
        {server_name, "ocsp"},
        {server_root, Dir},
        {document_root, Dir},
        {modules, [?MODULE]}
    ]),
    [{port, Used}] = httpd:info(Pid, [port]),
    io:format("http://127.0.0.1:~b/~n", [Used]),
    end_with_input().

end_with_input() ->
    case io:get_line("") of
        eof -> halt(0);
        _ -> end_with_input()
    end.

%% Called by httpd for each request; the body is the 12th field of its record #mod.
do(Mod) ->
    Body = answer(iolist_to_binary(element(13, Mod))),
    Head = [
        {code, 200},
        {content_type, "application/ocsp-response"},
        {content_length, integer_to_list(byte_size(Body))}
    ],
    {proceed, [{response, {response, Head, Body}}]}.

answer(Der) ->
    {'OCSPRequest', Tbs, _} = public_key:der_decode('OCSPRequest', Der),
    {'TBSRequest', _, _, Requests, _} = Tbs,
    {Signer, KeyFile} = signer(),
    Now = os:system_time(second),
    Singles = [single(Id, Now) || {'Request', Id, _} <- Requests],
    Data =
        {'ResponseData', v1, {byName, subject(Signer)}, generalized(Now), Singles, asn1_NOVALUE},
    Key = public_key:pem_entry_decode(hd(pem(KeyFile))),
    Signature = public_key:sign(public_key:der_encode('ResponseData', Data), sha256, Key),
    Basic = {'BasicOCSPResponse', Data, algorithm(Key), Signature, [Signer || KeyFile =:= "responder.key"]},
    Bytes = {'ResponseBytes', ?OCSP_BASIC, public_key:der_encode('BasicOCSPResponse', Basic)},
    public_key:der_encode('OCSPResponse', {'OCSPResponse', successful, Bytes}).

single({'CertID', _, _, _, Serial} = Id, Now) ->
    {'SingleResponse', Id, status(Serial), generalized(Now), generalized(Now + 4 * 3600), asn1_NOVALUE}.

%% The CertStatus of a serial number by index.txt.
status(Serial) ->
    {ok, Text} = file:read_file(path("index.txt")),
    Lines = [string:split(Line, "\t", all) || Line <- string:split(string:trim(binary_to_list(Text)), "\n", all)],
    case [Fields || [_, _, _, Number | _] = Fields <- Lines, list_to_integer(Number, 16) =:= Serial] of
        [["V" | _]] -> {good, 'NULL'};
        [["R", _, Revocation | _]] -> {revoked, revocation(string:split(Revocation, ",", all))};
        [] -> {unknown, 'NULL'}
    end.

revocation([Time, "holdInstruction" | _]) -> {'RevokedInfo', "20" ++ Time, certificateHold};
revocation([Time | _]) -> {'RevokedInfo', "20" ++ Time, asn1_NOVALUE}.

%% {Certificate, file of its key}: the authorized responder if there is one, else the CA.
signer() ->
    case filelib:is_file(path("responder.crt")) of
        true -> {certificate("responder.crt"), "responder.key"};
        false -> {certificate("ca.crt"), "ca.key"}
    end.

certificate(Name) ->
    [{'Certificate', Der, not_encrypted} | _] = pem(Name),
    public_key:pkix_decode_cert(Der, plain).

subject(Certificate) -> element(7, element(2, Certificate)).

algorithm(Key) when element(1, Key) =:= 'RSAPrivateKey' ->
    {'AlgorithmIdentifier', {1, 2, 840, 113549, 1, 1, 11}, <<5, 0>>};
algorithm(_) ->
    {'AlgorithmIdentifier', {1, 2, 840, 10045, 4, 3, 2}, asn1_NOVALUE}.

pem(Name) ->
    {ok, Text} = file:read_file(path(Name)),
    public_key:pem_decode(Text).

path(Name) -> filename:join(persistent_term:get(dir), Name).

generalized(Seconds) ->
    {{Y, Mo, D}, {H, Mi, S}} = calendar:system_time_to_universal_time(Seconds, second),
    lists:flatten(io_lib:format("~4..0b~2..0b~2..0b~2..0b~2..0b~2..0bZ", [Y, Mo, D, H, Mi, S])).
