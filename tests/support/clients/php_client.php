<?php
// php_client.php - a client with PHP's redis extension, for the table of clients.
//
// usage: php_client.php PORT CA-FILE
// Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output.
//
// SPDX-License-Identifier: BSD-3-Clause
set_error_handler(function ($number, $text) { echo "$text\n"; return true; });
try {
    $redis = new Redis(['backoff' => ['algorithm' => Redis::BACKOFF_ALGORITHM_DEFAULT, 'base' => 1, 'cap' => 1]]);
    $redis->connect('tls://127.0.0.1', (int)$argv[1], 5, null, 0, 5, ['stream' => ['cafile' => $argv[2]]]);
    $redis->ping();
} catch (RedisException $e) {
    echo $e->getMessage(), "\n";
    exit(preg_match('/ERR no/', $e->getMessage()) ? 0 : 3); // what tls_peer answers
}
