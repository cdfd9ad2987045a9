package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/secretmanager-io/secretmanager/ciphertext"
	"github.com/secretmanager-io/secretmanager/test/testenv"
	"github.com/secretmanager-io/secretmanager/transit"
)

// The author's secrets. Real ones do not belong in a source file.
const (
	secretsJSON = `{"database": {"user": "neo", "password": "there-is-no-spoon"}}`
	apiToken    = "follow-the-white-rabbit"
)

const class = `apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: matrix
  namespace: demo
spec:
  provider: secretmanager
  parameters:
    roleName: demo-matrix
    secretName: matrix-secrets
    transitKey: matrix
    vaultAuthMountPath: jwt
    objects: |
      - objectName: secrets.json
      - objectName: api-token
        filePermission: "0440"
      - objectName: db/password
        secretKey: secrets.json
        field: database.password
`

var key = ciphertext.Key{Mount: "transit", Name: "matrix"}

func (d *demo) startVault(ctx context.Context) error {
	d.announce("Start a Vault",
		"It runs in development mode on a loopback port. A key pair signs service account tokens, in "+
			"place of the API server of a cluster. Vault trusts it as it would trust the cluster.")
	var err error
	if d.vault, err = testenv.StartVault(ctx, testenv.VaultOptions{}); err != nil {
		return err
	}
	if d.issuer, err = testenv.NewJWTIssuer(); err != nil {
		return err
	}
	if err := d.vault.TrustIssuer(ctx, "jwt", d.issuer); err != nil {
		return err
	}
	d.printf("   Vault serves at %s", d.vault.Address)
	return nil
}

func (d *demo) setup(ctx context.Context) error {
	d.announce("Create a key, and roles with least privilege",
		"The app may only decrypt. The author may encrypt but not decrypt. The rotator may rotate and "+
			"rewrap but not decrypt. The key is derived, so each ciphertext is bound to its location.")
	out, err := d.secretmanager(ctx, d.vault.RootToken, "vault-setup", "--apply", "--auth-mount", "jwt",
		"--transit-key", "matrix",
		"-n", "demo", "--service-account", "matrix", "--author-service-account", "demo/author", "--retire")
	d.show(out)
	return err
}

// login logs in to Vault as a service account.
func (d *demo) login(ctx context.Context, role, namespace, account string) (string, error) {
	c, err := transit.NewClient(transit.Config{Address: d.vault.Address})
	if err != nil {
		return "", err
	}
	t, err := c.Login(ctx, transit.Login{Mount: "jwt", Role: role, JWT: func() (string, error) {
		return d.issuer.Token(namespace, account, "vault", time.Hour), nil
	}})
	return t.Value, err
}

func (d *demo) encrypt(ctx context.Context) error {
	d.announce("Encrypt",
		"The author encrypts plaintext into the manifest of a Secret, which can be committed to Git. "+
			"With a cluster, the command would apply it. Before it prints the manifest, the command "+
			"verifies with Vault that the ciphertext belongs to its location.")
	if err := os.WriteFile(d.path("secrets.json"), []byte(secretsJSON), 0o600); err != nil {
		return err
	}
	token, err := d.login(ctx, "demo-author", "demo", "author")
	if err != nil {
		return err
	}
	manifest, err := d.secretmanager(ctx, token, "encrypt", "matrix-secrets", "-n", "demo", "--transit-key", "matrix",
		"--from-file", "secrets.json", "--from-literal", "api-token="+apiToken, "-o", "yaml", "--dry-run=client")
	if err != nil {
		return err
	}
	d.show(manifest)
	for _, plain := range []string{apiToken, "there-is-no-spoon"} {
		if strings.Contains(manifest, plain) {
			return errors.New("the manifest has plaintext")
		}
	}
	return errors.Join(
		os.WriteFile(d.path("secret.yaml"), []byte(manifest), 0o600),
		os.WriteFile(d.path("before-rotation.yaml"), []byte(manifest), 0o600),
		os.WriteFile(d.path("class.yaml"), []byte(class), 0o600),
		os.Remove(d.path("secrets.json")),
	)
}

func (d *demo) mount(ctx context.Context) error {
	d.announce("Mount",
		"The provider runs on each node. The kubelet passes it the ciphertext and a token of the pod's "+
			"service account. With that token, and without permissions of its own, it has Vault decrypt.")
	socket := d.path("provider.sock")
	cmd := exec.Command(d.path("bin/secretmanager-provider"), "--endpoint", socket, "--vault-addr", d.vault.Address,
		"--vault-allowed-auth-mounts", "jwt", "--version-key-file", d.path("version-key"))
	cmd.Stdout, cmd.Stderr = &d.log, &d.log
	cmd.Env = []string{}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.provider = cmd
	if err := waitFor(ctx, socket); err != nil {
		return fmt.Errorf("the provider does not serve: %w\n%s", err, d.log.String())
	}
	d.printf("   $ secretmanager-provider --endpoint provider.sock --vault-addr %s --vault-allowed-auth-mounts jwt &",
		d.vault.Address)
	if err := d.mountAs(ctx, "secret.yaml", "volume", "demo"); err != nil {
		return err
	}
	return d.showVolume("volume")
}

// mountAs mounts a manifest as a pod of a namespace.
func (d *demo) mountAs(ctx context.Context, manifest, volume, namespace string) error {
	token := d.issuer.Token(namespace, "matrix", "vault", time.Hour)
	if err := os.WriteFile(d.path("token"), []byte(token), 0o600); err != nil {
		return err
	}
	out, err := d.secretmanager(ctx, "", "mount", "--class", "class.yaml", "--secret", manifest, "--socket",
		"provider.sock",
		"--service-account-token", "token", "--out", volume)
	d.show(out)
	return err
}

func (d *demo) showVolume(volume string) error {
	d.printf("\n   The pod reads:")
	// The driver's atomic writer has the files in this directory.
	return filepath.WalkDir(d.path(volume)+"/..data/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := path[strings.Index(path, "/..data/")+len("/..data/"):]
		d.show(fmt.Sprintf("%-14s %s", name, content))
		return nil
	})
}

func (d *demo) moveCiphertext(ctx context.Context) error {
	d.announce("Try to move ciphertext",
		"Somebody copies the ciphertext of one entry to another one. It does not decrypt there, because "+
			"the key is derived from the location. The pod would stay in ContainerCreating, with this "+
			"error in its events.")
	manifest, err := os.ReadFile(d.path("secret.yaml"))
	if err != nil {
		return err
	}
	data := regexp.MustCompile(`(?m)^  (api-token|secrets\.json): (\S+)$`).FindAllSubmatch(manifest, -1)
	if len(data) != 2 {
		return fmt.Errorf("the manifest has %d known entries, want two", len(data))
	}
	moved := strings.ReplaceAll(string(manifest), string(data[0][2]), string(data[1][2]))
	if err := os.WriteFile(d.path("moved.yaml"), []byte(moved), 0o600); err != nil {
		return err
	}
	return d.mustFail(d.mountAs(ctx, "moved.yaml", "stolen", "demo"), "moved ciphertext")
}

// mustFail returns nil for the error of a failed mount, and an error for a success.
func (d *demo) mustFail(err error, ciphertext string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return nil
	}
	if err == nil {
		return fmt.Errorf("%s was mounted", ciphertext)
	}
	return err
}

// rotatorSession returns a session of the rotator, and its token.
func (d *demo) rotatorSession(ctx context.Context) (*transit.Session, string, error) {
	token, err := d.login(ctx, "secretmanager-rotator", "secretmanager-system", "secretmanager-rotator")
	if err != nil {
		return nil, "", err
	}
	c, err := transit.NewClient(transit.Config{Address: d.vault.Address})
	if err != nil {
		return nil, "", err
	}
	return c.Session("", transit.StaticToken(token)), token, nil
}

func (d *demo) rotate(ctx context.Context) error {
	d.announce("Rotate and rewrap",
		"The key gets a new version, and Vault encrypts the ciphertext again with that version. In a "+
			"cluster the rotator does this each night. This step uses the manifest, and the rotator's "+
			"identity, which cannot decrypt.")
	session, token, err := d.rotatorSession(ctx)
	if err != nil {
		return err
	}
	info, err := session.Rotate(ctx, key)
	if err != nil {
		return err
	}
	d.printf("   %s is now at version %d", key, info.Latest)
	out, err := d.secretmanager(ctx, token, "rewrap", "secret.yaml")
	if err != nil {
		return err
	}
	d.show(out)
	if _, err := session.Decrypt(ctx, key,
		[]transit.Item{{Data: []byte("vault:v1:AAAA"), Context: []byte("x")}}); !errors.Is(err, transit.ErrDenied) {
		return fmt.Errorf("the rotator's attempt to decrypt was not denied: %w", err)
	}
	d.printf("   The rotator tries to decrypt: %v", transit.ErrDenied)
	before, err := d.contents("volume")
	if err != nil {
		return err
	}
	if err := d.mountAs(ctx, "secret.yaml", "volume", "demo"); err != nil {
		return err
	}
	after, err := d.contents("volume")
	if err != nil {
		return err
	}
	if !slices.Equal(before, after) {
		return errors.New("the files changed with the rotation")
	}
	d.printf("\n   The files are the same, so nothing restarts.")
	return nil
}

func (d *demo) contents(volume string) ([]string, error) {
	var all []string
	err := filepath.WalkDir(d.path(volume)+"/..data/", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		all = append(all, filepath.Base(path)+"="+string(content))
		return err
	})
	return all, err
}

func (d *demo) retire(ctx context.Context) error {
	d.announce("Retire the old version",
		"Nothing needs it, so Vault stops accepting it. Old ciphertext that leaked is now useless, "+
			"whatever permissions its owner has. The rewrapped one mounts as before.")
	session, _, err := d.rotatorSession(ctx)
	if err != nil {
		return err
	}
	info, err := session.Key(ctx, key)
	if err != nil {
		return err
	}
	if err := session.SetMinDecryptionVersion(ctx, key, info, info.Latest); err != nil {
		return err
	}
	d.printf("   %s now needs version %d or newer. The manifest from before the rotation:", key, info.Latest)
	if err := d.mustFail(d.mountAs(ctx, "before-rotation.yaml", "late", "demo"),
		"ciphertext of a retired version"); err != nil {
		return err
	}
	d.printf("\n   The rewrapped manifest, for a new pod:")
	if err := d.mountAs(ctx, "secret.yaml", "new-volume", "demo"); err != nil {
		return err
	}
	return d.showVolume("new-volume")
}

// waitFor waits until a socket exists.
func waitFor(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
