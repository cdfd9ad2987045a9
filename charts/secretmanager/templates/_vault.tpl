{{- /* The connection to Vault of the provider and the rotator: flags, volumes and mounts. */ -}}
{{- define "secretmanager.vaultConfigMap" -}}
{{ .Values.vault.existingConfigMap | default (printf "%s-vault" (include "secretmanager.fullname" .)) }}
{{- end -}}

{{- /* The address of Vault, or all addresses of a cluster. */ -}}
{{- define "secretmanager.vaultAddress" -}}
{{ join "," .Values.vault.addresses | default .Values.vault.address }}
{{- end -}}

{{- define "secretmanager.vaultArgs" -}}
{{- $vault := .Values.vault -}}
{{- if $vault.insecureHTTP }}
# For development only: everyone on the network can read tokens and plaintext.
- --vault-insecure-http
{{- end }}
{{- with $vault.namespace }}
- {{ printf "--vault-namespace=%s" . | quote }}
{{- end }}
{{- if ne $vault.authMount "kubernetes" }}
- {{ printf "--vault-auth-mount=%s" $vault.authMount | quote }}
{{- end }}
{{- with $vault.tlsServerName }}
- {{ printf "--vault-tls-server-name=%s" . | quote }}
{{- end }}
{{- if or $vault.ca.secret $vault.ca.configMap }}
- {{ printf "--vault-ca-cert=/etc/secretmanager/vault-ca/%s" $vault.ca.key | quote }}
{{- end }}
{{- if $vault.clientCertificate.secret }}
- {{ printf "--vault-client-cert=/etc/secretmanager/vault-client/%s" $vault.clientCertificate.certificateKey | quote }}
- {{ printf "--vault-client-key=/etc/secretmanager/vault-client/%s" $vault.clientCertificate.privateKeyKey | quote }}
{{- end }}
{{- end -}}

{{- /* Without those at paths that the user mounts: include "secretmanager.vaultMounts" (list $ $paths). */ -}}
{{- define "secretmanager.vaultMounts" -}}
{{- $vault := (index . 0).Values.vault -}}
{{- $paths := index . 1 -}}
{{- if and (or $vault.ca.secret $vault.ca.configMap) (not (has "/etc/secretmanager/vault-ca" $paths)) }}
- {name: vault-ca, mountPath: /etc/secretmanager/vault-ca, readOnly: true}
{{- end }}
{{- if and $vault.clientCertificate.secret (not (has "/etc/secretmanager/vault-client" $paths)) }}
- {name: vault-client, mountPath: /etc/secretmanager/vault-client, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Without those that the user defines: include "secretmanager.vaultVolumes" (list $ $names). */ -}}
{{- define "secretmanager.vaultVolumes" -}}
{{- $vault := (index . 0).Values.vault -}}
{{- $names := index . 1 -}}
{{- if and (or $vault.ca.secret $vault.ca.configMap) (not (has "vault-ca" $names)) }}
- name: vault-ca
  {{- with $vault.ca.secret }}
  secret: {secretName: {{ . | quote }}}
  {{- end }}
  {{- with $vault.ca.configMap }}
  configMap: {name: {{ . | quote }}}
  {{- end }}
{{- end }}
{{- if and $vault.clientCertificate.secret (not (has "vault-client" $names)) }}
- name: vault-client
  secret: {secretName: {{ $vault.clientCertificate.secret | quote }}}
{{- end }}
{{- end -}}
