/* StapleClient.java - a client with Java's TLS, for the table of clients.
 *
 * usage: StapleClient PORT CA-FILE check|leaf|plain|require|chain|soft [CONNECTIONS]
 * Exit status 0: the server was accepted, 3: it was rejected, with the reason on standard output.
 *
 * "check" enables revocation checking, as an application does with PKIXBuilderParameters, and sets nothing else: Java
 * requests the staple by default, and asks the responder about certificates without one. "leaf" checks the server's
 * certificate only, without the intermediate CAs. "plain" checks no revocation. "require", "chain" and "soft" use
 * utils/clients/java: for the server's certificate, for the whole chain, and with a missing staple accepted. Of several
 * CONNECTIONS each is made two seconds after the one before.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertificateFactory;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.PKIXRevocationChecker.Option;
import java.security.cert.X509CertSelector;
import java.util.EnumSet;
import javax.net.ssl.*;

class StapleClient {
    public static void main(String[] args) throws Exception {
        KeyStore trust = KeyStore.getInstance(KeyStore.getDefaultType());
        trust.load(null, null);
        try (FileInputStream file = new FileInputStream(args[1])) {
            trust.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(file));
        }
        PKIXBuilderParameters parameters = new PKIXBuilderParameters(trust, new X509CertSelector());
        parameters.setRevocationEnabled(!args[2].equals("plain"));
        if (args[2].equals("leaf")) {
            PKIXRevocationChecker checker =
                (PKIXRevocationChecker) CertPathBuilder.getInstance("PKIX").getRevocationChecker();
            checker.setOptions(EnumSet.of(Option.ONLY_END_ENTITY));
            parameters.addCertPathChecker(checker);
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance("PKIX");
        managers.init(new CertPathTrustManagerParameters(parameters));
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        switch (args[2]) {
        case "require": context = StapledTls.context(trust, EnumSet.of(Option.ONLY_END_ENTITY)); break;
        case "chain": context = StapledTls.context(trust, EnumSet.noneOf(Option.class)); break;
        case "soft": context = StapledTls.context(trust, EnumSet.of(Option.ONLY_END_ENTITY, Option.SOFT_FAIL)); break;
        }
        for (int left = args.length > 3 ? Integer.parseInt(args[3]) : 1; left > 0; left--) {
            try (SSLSocket socket =
                     (SSLSocket) context.getSocketFactory().createSocket("127.0.0.1", Integer.parseInt(args[0]))) {
                socket.startHandshake();
                socket.getOutputStream().write("PING\r\n".getBytes());
                socket.getInputStream().read(); // a session to resume comes with the reply
            } catch (SSLException e) {
                System.out.println(e);
                System.exit(3);
            }
            if (left > 1) Thread.sleep(2100);
        }
    }
}
