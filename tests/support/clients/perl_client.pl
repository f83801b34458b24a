# perl_client.pl - a client with Perl's Redis package (IO::Socket::SSL), for the table of clients.
#
# usage: perl_client.pl plain|require PORT CA-FILE
# Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output.
#
# SPDX-License-Identifier: BSD-3-Clause
use strict;
use warnings;
use IO::Socket::SSL;
use Redis;

my ($policy, $port, $ca) = @ARGV;
my %options = (SSL_ca_file => $ca);
# The recipe of docs/clients.md. As it comes, a staple is requested and checked if there is one.
$options{SSL_ocsp_mode} = SSL_OCSP_MUST_STAPLE | SSL_OCSP_FAIL_HARD if $policy eq 'require';
IO::Socket::SSL::set_client_defaults(%options);
eval { Redis->new(server => "127.0.0.1:$port", ssl => 1, SSL_verify_mode => SSL_VERIFY_PEER, reconnect => 0)->ping };
if ($@) {
    print $@;
    exit($@ =~ /ERR no|closed/ ? 0 : 3);    # what tls_peer answers
}
