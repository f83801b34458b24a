# ruby_client.rb - a client with Ruby's redis-client, on which redis (redis-rb) is built, for the table of clients.
#
# usage: ruby_client.rb PORT CA-FILE
# Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output.
#
# SPDX-License-Identifier: BSD-3-Clause
require 'redis-client'

begin
  RedisClient.config(host: '127.0.0.1', port: ARGV[0].to_i, ssl: true, ssl_params: { ca_file: ARGV[1] }, protocol: 2,
                     reconnect_attempts: 0).new_client.call('PING')
rescue RedisClient::CommandError # the server answered
  nil
rescue RedisClient::ConnectionError => e
  puts e.message
  exit 3
end
