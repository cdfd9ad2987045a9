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

{{- define "secretmanager.vaultMounts" -}}
{{- if or .Values.vault.ca.secret .Values.vault.ca.configMap }}
- {name: vault-ca, mountPath: /etc/secretmanager/vault-ca, readOnly: true}
{{- end }}
{{- if .Values.vault.clientCertificate.secret }}
- {name: vault-client, mountPath: /etc/secretmanager/vault-client, readOnly: true}
{{- end }}
{{- end -}}

{{- define "secretmanager.vaultVolumes" -}}
{{- $vault := .Values.vault -}}
{{- if or $vault.ca.secret $vault.ca.configMap }}
- name: vault-ca
  {{- with $vault.ca.secret }}
  secret: {secretName: {{ . | quote }}}
  {{- end }}
  {{- with $vault.ca.configMap }}
  configMap: {name: {{ . | quote }}}
  {{- end }}
{{- end }}
{{- with $vault.clientCertificate.secret }}
- name: vault-client
  secret: {secretName: {{ . | quote }}}
{{- end }}
{{- end -}}
