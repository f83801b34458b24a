/* StapledTls.java - TLS for any JVM client that refuses servers without a good OCSP staple, by Java's own PKIX code. It
 * contacts no responder and fetches no CRL.
 *
 *   SSLContext context = StapledTls.context(trust, EnumSet.of(Option.ONLY_END_ENTITY));
 *
 * Options are those of PKIXRevocationChecker: ONLY_END_ENTITY checks the server's certificate, none also its
 * intermediate CAs, whose staples few servers send. With SOFT_FAIL a missing staple is accepted, and so is an error of the
 * responder; Java does not look at must-staple. Resumed sessions carry no staple: they are resumed for a second only.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

import java.net.URI;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.CertPathBuilder;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.PKIXRevocationChecker.Option;
import java.security.cert.X509CertSelector;
import java.util.HashSet;
import java.util.Set;
import javax.net.ssl.CertPathTrustManagerParameters;
import javax.net.ssl.KeyManager;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

public final class StapledTls {
    private StapledTls() {}

    /** For clients that want a TrustManagerFactory (Lettuce, Netty). */
    public static TrustManagerFactory trustManagers(KeyStore trust, Set<Option> options)
        throws GeneralSecurityException {
        PKIXRevocationChecker checker =
            (PKIXRevocationChecker) CertPathBuilder.getInstance("PKIX").getRevocationChecker();
        Set<Option> all = new HashSet<>(options);
        all.add(Option.NO_FALLBACK); // no CRL
        checker.setOptions(all);
        // Used where a staple is missing, in place of the URL in the certificate. No such protocol: nothing is sent.
        checker.setOcspResponder(URI.create("no-responder:only-staples"));
        PKIXBuilderParameters parameters = new PKIXBuilderParameters(trust, new X509CertSelector());
        parameters.addCertPathChecker(checker);
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(new CertPathTrustManagerParameters(parameters));
        return factory;
    }

    /** For clients that want an SSLContext or its socket factory (Jedis, plain sockets). */
    public static SSLContext context(KeyStore trust, Set<Option> options, KeyManager... keys)
        throws GeneralSecurityException {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys, trustManagers(trust, options).getTrustManagers(), null);
        context.getClientSessionContext().setSessionTimeout(1);
        return context;
    }
}
